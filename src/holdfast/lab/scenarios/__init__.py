"""Worlds to start a lab with: to show, to learn and to rehearse on, to test with, and the pool of the recordings.

Invariant: the same options on the same machine give the same world, but for identities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from holdfast.core import GIB, MIB, SeededEntropy
from holdfast.lab.context import Context
from holdfast.lab.images import SCENARIOS as PLANS
from holdfast.lab.images import VmPlan, new_generator, write_minimal_boot
from holdfast.lab.options import LabOptionInvalid, LabOptions
from holdfast.lab.scenarios.fleet import RECOVERY_SCENARIO, build_fleet, build_recovery, recovery_of
from holdfast.lab.scenarios.inventory import UNLICENSED, build_inventory
from holdfast.lab.scenarios.machines import DiskSpec, MachineSpec
from holdfast.lab.scenarios.office import build_office
from holdfast.lab.scenarios.recorded import build_recorded
from holdfast.lab.scenarios.small import build_small
from holdfast.lab.scenarios.world import World
from holdfast.lab.volumes import refresh_sr

__all__ = ["SCENARIOS", "SCENARIO_SUMMARIES", "Scenario", "build_scenario", "settle_options", "side_pools"]

_PURPOSES = {"tls": "nbd", "plain": "insecure_nbd", "none": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One world that a lab can be started with."""

    summary: str
    """What it holds, in a sentence, for whoever chooses."""
    build: Callable[[World], None]
    pool_name: str = "lab"
    hosts_min: int = 1
    """It needs so many hosts, whatever the options say."""
    host_memory_bytes: int = 64 * GIB
    is_offered: bool = True
    """Whether people choose it; the others are for tests, or come with one that they chose."""
    cost: str = "1 s"
    """What its first start takes, of time and disk, on a machine of two cores."""


def settle_options(options: LabOptions) -> LabOptions:
    """Return the options with as many hosts as the scenario needs. ``LabOptionInvalid`` for a name that does not
    exist."""
    return replace(options, hosts=max(options.hosts, _scenario(options).hosts_min))


def side_pools(options: LabOptions) -> tuple[LabOptions, ...]:
    """Return the options of the pools that a scenario has beside its first; each has a folder inside the first's."""
    return (recovery_of(options),) if options.scenario == "fleet" else ()


def build_scenario(context: Context, options: LabOptions) -> None:
    """Fill a fresh pool as the options say. ``LabOptionInvalid`` for a name that does not exist."""
    scenario = _scenario(options)
    is_recorded = options.scenario == "recorded"
    with context.pool.disks.batch(), context.db.transaction():
        inventory = build_inventory(
            context.pool,
            sr_type="file" if is_recorded else "ext" if options.hosts == 1 else "nfs",
            purpose=_PURPOSES[options.nbd],
            hosts=options.hosts,
            name=scenario.pool_name,
            host_memory_bytes=scenario.host_memory_bytes,
            storage_bytes=options.storage_bytes,
            restricted=UNLICENSED if is_recorded else frozenset(),
        )
        entropy = SeededEntropy(options.seed if options.seed is not None else 1)
        scenario.build(World(context=context, options=options, inventory=inventory, entropy=entropy))
        for row in context.db.rows("SR"):
            refresh_sr(context.pool, row.ref)


def _scenario(options: LabOptions) -> Scenario:
    scenario = SCENARIOS.get(options.scenario)
    if scenario is None:
        raise LabOptionInvalid(option="scenario", given=options.scenario, choices=sorted(SCENARIO_SUMMARIES))
    return scenario


def _build_none(world: World) -> None:
    """A pool without VMs."""


def _build_bare(world: World) -> None:
    """Two VMs whose disks of 64 MiB hold noise: data, holes and zeros, made in no time; the first ones boot."""
    entropy, disks = world.entropy, world.context.pool.disks

    def fill(uuid: str) -> None:
        disks.write(uuid, 0, entropy.token_bytes(3 * MIB))
        disks.write(uuid, 10 * MIB + 4096, b"lab " * 200_000)
        disks.write(uuid, 63 * MIB, entropy.token_bytes(MIB))

    def fill_system(uuid: str) -> None:
        fill(uuid)
        write_minimal_boot(disks, uuid, new_generator(entropy))

    one = DiskSpec("alpha 0", 64 * MIB, fill_system)
    two = DiskSpec("beta 0", 64 * MIB, fill_system)
    three = DiskSpec("beta 1", 64 * MIB, fill)
    world.add(MachineSpec(name="alpha", description="One disk, BIOS", disks=(one,), tags=("backup", "small")))
    world.add(MachineSpec(name="beta", description="Two disks, UEFI", disks=(two, three), has_uefi=True, cards=2))


def _build_planned(world: World) -> None:
    """The VMs of a plan whose disks have real file systems with real files."""
    for plan in PLANS[world.options.scenario]:
        world.add(_planned_machine(world, plan))


def _planned_machine(world: World, plan: VmPlan) -> MachineSpec:
    description, tags, has_uefi = _MANNERS[plan.name]
    return MachineSpec(
        name=plan.name,
        description=description,
        tags=tags,
        has_uefi=has_uefi,
        memory_bytes=2 * GIB,
        disks=tuple(DiskSpec(disk.name, disk.size_bytes, world.filled_with(disk.content)) for disk in plan.disks),
    )


_MANNERS = {
    "web": ("Web server: files, a small database, a log", ("production", "web"), False),
    "db": ("Database server: a system disk and a data disk", ("production", "database"), True),
}
"""What the plans do not say of a VM: description, tags, firmware."""

SCENARIOS: dict[str, Scenario] = {
    "bare": Scenario(
        summary="Two VMs whose three disks of 64 MiB hold noise; starts in no time.",
        build=_build_bare,
        is_offered=False,
    ),
    "demo": Scenario(
        summary="A web server and a database server with real file systems, to show and to learn.",
        build=_build_planned,
        cost="20 s, 1.7 GB",
    ),
    "empty": Scenario(summary="A pool without VMs.", build=_build_none),
    "fleet": Scenario(
        summary="A thousand servers with sparse disks on four hosts, and a second pool to recover to.",
        cost="12 s, 180 MB",
        build=build_fleet,
        pool_name="fleet",
        hosts_min=4,
        host_memory_bytes=1024 * GIB,
    ),
    RECOVERY_SCENARIO: Scenario(
        summary="The second pool of the fleet: a recovery site with a few services.",
        build=build_recovery,
        pool_name="fleet recovery",
        is_offered=False,
    ),
    "office": Scenario(
        summary="Twenty VMs of a firm on two hosts: Windows and Linux, NTFS, ext4, XFS, btrfs, LVM, a disk of 3 TiB.",
        cost="5 s, 500 MB",
        build=build_office,
        pool_name="office",
        hosts_min=2,
        host_memory_bytes=128 * GIB,
    ),
    "recorded": Scenario(
        summary="The very pool of the recordings that the lab is judged by: plain images, no VMs.",
        build=build_recorded,
        pool_name="",
        is_offered=False,
    ),
    "small": Scenario(
        summary="Three servers: ext4, XFS and NTFS; a few gigabytes of sparse disks.",
        cost="2 s, 120 MB",
        build=build_small,
    ),
    "tiny": Scenario(summary="The demo in small: two VMs of 64 MiB.", build=_build_planned, cost="1 s, 20 MB"),
}

SCENARIO_SUMMARIES = {name: scenario.summary for name, scenario in SCENARIOS.items() if scenario.is_offered}
"""The scenarios that people choose from, with a sentence each."""
