"""What the scenarios build with: the pool under construction, and disks with the contents that people have.

Invariant: everything that is drawn comes from one seed, in one order, so the same options give the same contents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.core import GIB, MIB, Entropy
from holdfast.lab.calls import create_pool_vlan
from holdfast.lab.context import Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.images import (
    DataDiskSpec,
    PreparedDiskSpec,
    VolumeGroupSpec,
    fill_disk,
    fill_volume_group,
    pack_iso,
)
from holdfast.lab.images import DiskSpec as ContentSpec
from holdfast.lab.options import LabOptions
from holdfast.lab.scenarios.inventory import Inventory
from holdfast.lab.scenarios.machines import DiskSpec, Fill, MachineSpec, add_machine
from holdfast.lab.scenarios.systems import System
from holdfast.lab.volumes import create_vdi, disk_uuid, mark_written

__all__ = ["World", "no_content"]

_SYSTEM_DISK_BYTES = 10 * GIB
_WINDOWS_DISK_BYTES = 8 * GIB
_ISO_SR_BYTES = 32 * GIB


def no_content(uuid: str) -> None:
    """Leave the disk empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A pool under construction."""

    context: Context
    options: LabOptions
    inventory: Inventory
    entropy: Entropy

    def add(self, spec: MachineSpec) -> str:
        """Make a VM and return it."""
        return add_machine(self.context, self.inventory, spec, cbt=self.options.cbt)

    def filled_with(self, content: ContentSpec) -> Fill:
        """Return what fills a disk with that content."""
        return lambda uuid: fill_disk(self.context.pool.disks, uuid, content, entropy=self.entropy)

    def system_disk(
        self, name: str, system: System, *, has_uefi: bool = False, is_mbr: bool = False, needs: tuple[str, ...] = ()
    ) -> DiskSpec:
        """Return a disk that boots that system."""
        content = PreparedDiskSpec(
            filesystem=system.filesystem,
            hostname=name,
            table="mbr" if is_mbr else "gpt",
            has_esp=has_uefi,
            swap_bytes=0 if system.is_windows else GIB,
            system=system.guest,
            needs=needs,
        )
        size_bytes = _WINDOWS_DISK_BYTES if system.is_windows else _SYSTEM_DISK_BYTES
        return DiskSpec(
            f"{name} system", size_bytes, self.filled_with(content), description=f"Boots {system.guest.name}"
        )

    def data_disk(self, name: str, filesystem: str, *, size_bytes: int, description: str = "") -> DiskSpec:
        """Return a disk with one partition for data."""
        content = PreparedDiskSpec(filesystem=filesystem)
        return DiskSpec(name, size_bytes, self.filled_with(content), description=description)

    def raw_disk(self, name: str, *, size_bytes: int, description: str = "") -> DiskSpec:
        """Return a disk that a database uses without partitions or a file system."""
        content = DataDiskSpec(database_bytes=16 * MIB, media_bytes=8 * MIB, log_bytes=MIB)
        return DiskSpec(name, size_bytes, self.filled_with(content), description=description)

    def empty_disk(self, name: str, *, size_bytes: int, description: str = "") -> DiskSpec:
        """Return a disk that nobody wrote yet."""
        return DiskSpec(name, size_bytes, no_content, description=description)

    def volume_group(self, spec: VolumeGroupSpec) -> Callable[[list[str]], None]:
        """Return what makes all disks of a VM but the first a volume group."""
        disks = self.context.pool.disks
        return lambda uuids: fill_volume_group(disks, uuids[1:], spec, entropy=self.entropy)

    def add_network(self, name: str, description: str, *, bridge: str, tag: int) -> str:
        """Make a network beside the management one, tagged on the first card of every host."""
        fields: Fields = {"name_label": name, "name_description": description, "bridge": bridge, "managed": True}
        network = self.context.db.create("network", fields)
        create_pool_vlan(self.context, "eth0", network, tag)
        return network

    def add_iso_library(self, names: tuple[str, ...]) -> list[str]:
        """Make a shared repository of CD images and return the images."""
        db = self.context.db
        location = "nfs.example.net:/export/iso"
        sr = db.create(
            "SR",
            {
                "name_label": "ISO library",
                "name_description": "Installation media",
                "type": "iso",
                "content_type": "iso",
                "shared": True,
                "physical_size": _ISO_SR_BYTES,
                "sm_config": {"iso_type": "nfs_iso"},
            },
        )
        for host in self.inventory.hosts:
            config = {"location": location, "type": "nfs_iso"}
            db.create("PBD", {"host": host, "SR": sr, "device_config": config, "currently_attached": True})
        return [self._add_iso(sr, name) for name in names]

    def _add_iso(self, sr: str, name: str) -> str:
        pool = self.context.pool
        label = name.removesuffix(".iso").upper().replace("-", "_")[:32]
        image = pack_iso(label, name="README.TXT", content=f"This disc stands for {name}.\n".encode())
        fields: Fields = {
            "name_label": name,
            "name_description": "",
            "SR": sr,
            "virtual_size": len(image),
            "type": "user",
            "sharable": True,
            "read_only": True,
            "other_config": {},
            "xenstore_data": {},
            "sm_config": {},
            "tags": [],
        }
        vdi = create_vdi(pool, fields)
        pool.disks.write(disk_uuid(pool, vdi), 0, image)
        mark_written(pool, vdi)
        pool.db.update("VDI", vdi, {"read_only": True, "parent": NULL_REF, "location": name})
        return vdi
