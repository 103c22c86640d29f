"""Worlds to start a lab with: one to show, a tiny one, one for tests, an empty pool, and the pool of the recordings.

Invariant: the same options on the same machine give the same world, but for identities.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.core import GIB, MIB, Entropy, SeededEntropy
from holdfast.lab.context import Context
from holdfast.lab.images import SCENARIOS as PLANS
from holdfast.lab.images import DiskSpec as ContentSpec
from holdfast.lab.images import VmPlan, fill_disk
from holdfast.lab.options import LabOptionInvalid, LabOptions
from holdfast.lab.scenarios.inventory import build_inventory
from holdfast.lab.scenarios.machines import DiskSpec, Fill, MachineSpec, add_machine
from holdfast.lab.scenarios.summaries import SCENARIO_SUMMARIES

__all__ = ["SCENARIOS", "SCENARIO_SUMMARIES", "build_scenario"]

_PURPOSES = {"tls": "nbd", "plain": "insecure_nbd", "none": ""}


def build_scenario(context: Context, options: LabOptions) -> None:
    """Fill a fresh pool as the options say. ``LabOptionInvalid`` for a name that does not exist."""
    machines = SCENARIOS.get(options.scenario)
    if machines is None:
        raise LabOptionInvalid(option="scenario", given=options.scenario, choices=sorted(SCENARIOS))
    is_recorded = options.scenario == "recorded"
    inventory = build_inventory(
        context.pool,
        sr_type="file" if is_recorded else "ext",
        purpose=_PURPOSES[options.nbd],
        hosts=options.hosts,
        name="" if is_recorded else "lab",
        restricted=frozenset({"restrict_vif_locking", "restrict_vtpm"}) if is_recorded else frozenset(),
    )
    for spec in machines(context, options):
        add_machine(context, inventory, spec, cbt=options.cbt)


Machines = Callable[[Context, LabOptions], tuple[MachineSpec, ...]]


def _none(context: Context, options: LabOptions) -> tuple[MachineSpec, ...]:
    return ()


def _bare(context: Context, options: LabOptions) -> tuple[MachineSpec, ...]:
    """Two VMs whose disks of 64 MiB hold noise: data, holes and zeros, made in no time."""
    entropy = _entropy(options)

    def fill(uuid: str) -> None:
        disks = context.pool.disks
        disks.write(uuid, 0, entropy.token_bytes(3 * MIB))
        disks.write(uuid, 10 * MIB + 4096, b"lab " * 200_000)
        disks.write(uuid, 63 * MIB, entropy.token_bytes(MIB))

    one = DiskSpec("alpha 0", 64 * MIB, fill)
    two = DiskSpec("beta 0", 64 * MIB, fill)
    three = DiskSpec("beta 1", 64 * MIB, fill)
    return (
        MachineSpec(name="alpha", description="One disk, BIOS", disks=(one,), tags=("backup", "small")),
        MachineSpec(name="beta", description="Two disks, UEFI", disks=(two, three), has_uefi=True, cards=2),
    )


def _planned(context: Context, options: LabOptions) -> tuple[MachineSpec, ...]:
    """The VMs of a plan whose disks have real file systems with real files."""
    entropy = _entropy(options)
    return tuple(_planned_machine(context, plan, entropy) for plan in PLANS[options.scenario])


def _planned_machine(context: Context, plan: VmPlan, entropy: Entropy) -> MachineSpec:
    def fill_with(content: ContentSpec) -> Fill:
        return lambda uuid: fill_disk(context.pool.disks, uuid, content, entropy=entropy)

    description, tags, has_uefi = _MANNERS[plan.name]
    return MachineSpec(
        name=plan.name,
        description=description,
        tags=tags,
        has_uefi=has_uefi,
        memory_bytes=2 * GIB,
        disks=tuple(DiskSpec(disk.name, disk.size_bytes, fill_with(disk.content)) for disk in plan.disks),
    )


def _entropy(options: LabOptions) -> Entropy:
    return SeededEntropy(options.seed if options.seed is not None else 1)


_MANNERS = {
    "web": ("Web server: files, a small database, a log", ("production", "web"), False),
    "db": ("Database server: a system disk and a data disk", ("production", "database"), True),
}
"""What the plans do not say of a VM: description, tags, firmware."""

SCENARIOS: dict[str, Machines] = {
    "bare": _bare,
    "demo": _planned,
    "empty": _none,
    "recorded": _none,
    "tiny": _planned,
}
