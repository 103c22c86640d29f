"""``office``: the servers of a firm of a hundred people, with everything that such a pool collects over the years.

Windows and Linux, every file system and both kinds of partition table, a volume group, a disk beyond the limit of VHD,
VMs that run, sleep, wait and lie idle, one without guest tools, one that is a template. Invariant:
twenty VMs and the template.
"""

from __future__ import annotations

from holdfast.core import GIB, TIB
from holdfast.lab.database import Fields
from holdfast.lab.images import VolumeGroupSpec
from holdfast.lab.scenarios.machines import MachineSpec
from holdfast.lab.scenarios.systems import (
    DEBIAN,
    LEAP,
    ROCKY,
    SERVER_2016,
    SERVER_2022,
    UBUNTU,
    WINDOWS_11,
    without_tools,
)
from holdfast.lab.scenarios.world import World

__all__ = ["build_office"]

_ISOS = ("debian-13.1.0-amd64-netinst.iso", "windows-server-2022.iso", "XenServer-VM-Tools.iso")


def build_office(world: World) -> None:
    """Make networks, media, and the VMs in the order in which the firm got them."""
    dmz = world.add_network("DMZ", "What the world may reach", bridge="xapi1", tag=10)
    lan = world.add_network("Office", "Where people work", bridge="xapi2", tag=20)
    isos = world.add_iso_library(_ISOS)
    _add_windows_servers(world, lan)
    _add_other_windows(world, lan)
    _add_web_shop(world, dmz)
    _add_linux_servers(world, lan)
    _add_rarely_used(world, lan, install_iso=isos[0])


def _add_windows_servers(world: World, lan: str) -> None:
    for number, iso_host in ((1, 0), (2, 1)):
        name = f"dc{number:02d}"
        world.add(
            MachineSpec(
                name=name,
                description="Domain controller, DNS, DHCP",
                tags=("production", "windows", "directory"),
                system=SERVER_2022,
                has_uefi=True,
                has_secure_boot=True,
                memory_bytes=2 * GIB,
                networks=(lan,),
                host=iso_host,
                restart_priority="restart",
                disks=(world.system_disk(name, SERVER_2022, has_uefi=True),),
            )
        )
    world.add(
        MachineSpec(
            name="files01",
            description="File server: shares of all departments",
            tags=("production", "windows", "files"),
            system=SERVER_2022,
            has_uefi=True,
            memory_bytes=4 * GIB,
            networks=(lan,),
            restart_priority="restart",
            order=1,
            disks=(
                world.system_disk("files01", SERVER_2022, has_uefi=True),
                world.data_disk("files01 shares", "ntfs-data", size_bytes=200 * GIB, description="Drive D:"),
            ),
            snapshots=("before the quota change",),
        )
    )


def _add_other_windows(world: World, lan: str) -> None:
    world.add(
        MachineSpec(
            name="print01",
            description="Printers and scanners",
            tags=("production", "windows"),
            system=SERVER_2016,
            memory_bytes=2 * GIB,
            networks=(lan,),
            disks=(world.system_disk("print01", SERVER_2016),),
        )
    )
    world.add(
        MachineSpec(
            name="erp01",
            description="The old ERP, kept for the tax office until 2031; do not upgrade",
            tags=("production", "windows", "legacy"),
            system=SERVER_2016,
            memory_bytes=4 * GIB,
            networks=(lan,),
            host=1,
            disks=(world.system_disk("erp01", SERVER_2016, is_mbr=True),),
            snapshots=("as the vendor left it",),
        )
    )
    world.add(
        MachineSpec(
            name="admin-pc",
            description="Windows 11 for remote administration, encrypted with its TPM",
            tags=("windows", "desktop"),
            system=WINDOWS_11,
            has_uefi=True,
            has_secure_boot=True,
            has_vtpm=True,
            memory_bytes=4 * GIB,
            networks=(lan,),
            disks=(world.system_disk("admin-pc", WINDOWS_11, has_uefi=True),),
        )
    )


def _add_web_shop(world: World, dmz: str) -> None:
    """Three VMs that start one after the other, as one appliance."""
    fields: Fields = {"name_label": "Web shop", "name_description": "Database, then shop, then proxy"}
    shop = world.context.db.create("VM_appliance", fields)
    members = tuple(f"shop-db/{number}" for number in (1, 2))
    group = VolumeGroupSpec(name="vg_shop", volume="data", filesystem="xfs-data", member_ids=members)
    world.add(
        MachineSpec(
            name="shop-db",
            description="PostgreSQL of the web shop; its data lies on a volume group over two disks",
            tags=("production", "linux", "database", "shop"),
            system=ROCKY,
            has_uefi=True,
            memory_bytes=8 * GIB,
            vcpus=4,
            appliance=shop,
            order=0,
            start_delay_s=30,
            disks=(
                world.system_disk("shop-db", ROCKY, has_uefi=True, needs=members),
                *(world.empty_disk(f"shop-db data {number}", size_bytes=4 * GIB) for number in (1, 2)),
            ),
            fill_together=world.volume_group(group),
        )
    )
    world.add(
        MachineSpec(
            name="shop",
            description="The web shop",
            tags=("production", "linux", "web", "shop"),
            system=DEBIAN,
            memory_bytes=4 * GIB,
            networks=(dmz,),
            appliance=shop,
            order=1,
            start_delay_s=10,
            host=1,
            disks=(world.system_disk("shop", DEBIAN),),
            snapshots=("release 41", "release 42"),
        )
    )
    world.add(
        MachineSpec(
            name="proxy",
            description="Reverse proxy with the certificates",
            tags=("production", "linux", "web", "shop"),
            system=DEBIAN,
            networks=(dmz,),
            cards=2,
            appliance=shop,
            order=2,
            disks=(world.system_disk("proxy", DEBIAN, is_mbr=True),),
        )
    )


def _add_linux_servers(world: World, lan: str) -> None:
    archive = world.data_disk(
        "archive documents", "xfs-archive", size_bytes=3 * TIB, description="Larger than a VHD can be: a qcow2 image"
    )
    world.add(
        MachineSpec(
            name="archive",
            description="Scanned documents since 2019",
            tags=("production", "linux", "files"),
            system=ROCKY,
            memory_bytes=4 * GIB,
            networks=(lan,),
            host=1,
            disks=(world.system_disk("archive", ROCKY), archive),
        )
    )
    plain = (
        ("mail", "Mail server", ROCKY, ("production", "linux", "mail"), True, False),
        ("git", "Source code and reviews", LEAP, ("production", "linux", "development"), True, False),
        ("ci", "Builds and tests", LEAP, ("linux", "development"), False, False),
        ("wiki", "What everybody should know", UBUNTU, ("production", "linux"), False, False),
        ("monitor", "Watches all the others", DEBIAN, ("production", "linux", "monitoring"), False, True),
        (
            "phone",
            "Telephone system; the vendor forbids guest tools",
            without_tools(DEBIAN),
            ("production",),
            False,
            True,
        ),
    )
    for number, (name, description, system, tags, has_uefi, is_mbr) in enumerate(plain):
        world.add(
            MachineSpec(
                name=name,
                description=description,
                tags=tags,
                system=system,
                has_uefi=has_uefi,
                memory_bytes=2 * GIB,
                networks=(lan,),
                host=number % 2,
                disks=(world.system_disk(name, system, has_uefi=has_uefi, is_mbr=is_mbr),),
            )
        )
    world.add(
        MachineSpec(
            name="erp-db",
            description="Database of the ERP, on a disk without partitions",
            tags=("production", "linux", "database"),
            system=ROCKY,
            memory_bytes=8 * GIB,
            networks=(lan,),
            disks=(
                world.system_disk("erp-db", ROCKY),
                world.raw_disk("erp-db data", size_bytes=64 * GIB, description="Written by the database itself"),
            ),
        )
    )


def _add_rarely_used(world: World, lan: str, *, install_iso: str) -> None:
    world.add(
        MachineSpec(
            name="test-win",
            description="Windows to try updates on; suspended between the patch days",
            tags=("test", "windows"),
            system=SERVER_2022,
            memory_bytes=GIB,
            networks=(lan,),
            power="Suspended",
            disks=(world.system_disk("test-win", SERVER_2022, is_mbr=True),),
        )
    )
    world.add(
        MachineSpec(
            name="test-linux",
            description="Paused by somebody who looked for a fault in it",
            tags=("test", "linux"),
            system=UBUNTU,
            networks=(lan,),
            power="Paused",
            disks=(world.system_disk("test-linux", UBUNTU),),
        )
    )
    world.add(
        MachineSpec(
            name="intranet-old",
            description="The intranet before the wiki; may go at the end of the year",
            tags=("linux", "legacy"),
            system=DEBIAN,
            networks=(lan,),
            power="Halted",
            iso=install_iso,
            disks=(world.system_disk("intranet-old", DEBIAN, is_mbr=True),),
        )
    )
    world.add(
        MachineSpec(
            name="template-debian",
            description="What new Linux servers are cloned from",
            tags=("linux",),
            system=DEBIAN,
            networks=(lan,),
            power="Halted",
            is_template=True,
            disks=(world.system_disk("template-debian", DEBIAN),),
        )
    )
