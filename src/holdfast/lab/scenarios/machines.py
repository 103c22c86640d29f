"""The VMs of a scenario, with records as rich as those that people have: tags, NVRAM, cards, several disks.

Invariant: a machine is made by the pool's own calls, so that whatever they promise of a VM holds for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from holdfast.core import GIB
from holdfast.lab.calls import (
    create_vbd,
    create_vif,
    create_vm,
    pause_vm,
    report_guest,
    snapshot_vm,
    start_vm_on,
    suspend_vm,
)
from holdfast.lab.context import Context
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.scenarios.inventory import Inventory
from holdfast.lab.scenarios.records import card_record, disk_record, drive_record, vbd_record, vm_record
from holdfast.lab.scenarios.systems import DEBIAN, System
from holdfast.lab.volumes import clone_vdi, create_vdi, disk_uuid

__all__ = ["DiskSpec", "Fill", "MachineSpec", "add_machine"]

Fill = Callable[[str], None]
"""Writes the content of the disk with this uuid into the store."""


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """One disk of a VM to be."""

    name: str
    size_bytes: int
    fill: Fill
    description: str = ""
    sr: str = ""
    """Where it goes; the pool's default repository when left out."""
    clone_of: str = ""
    """The disk that it is a fast clone of; ``fill`` writes what differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """One VM to be."""

    name: str
    description: str
    disks: tuple[DiskSpec, ...]
    tags: tuple[str, ...] = ()
    memory_bytes: int = GIB
    vcpus: int = 2
    system: System = DEBIAN
    has_uefi: bool = False
    has_secure_boot: bool = False
    has_vtpm: bool = False
    cards: int = 1
    networks: tuple[str, ...] = ()
    """Where the cards are connected, in turn; the management network when left out."""
    other_config: dict[str, str] = field(default_factory=dict)
    power: Literal["Halted", "Paused", "Running", "Suspended"] = "Running"
    host: int = 0
    """The number of the host it runs on."""
    snapshots: tuple[str, ...] = ()
    is_template: bool = False
    restart_priority: str = ""
    order: int = 0
    start_delay_s: int = 0
    appliance: str = NULL_REF
    iso: str = NULL_REF
    """What is in its drive."""
    fill_together: Callable[[list[str]], None] | None = None
    """Writes what spans several of its disks, given the uuids of all."""


def add_machine(context: Context, inventory: Inventory, spec: MachineSpec, *, cbt: bool) -> str:
    """Make the VM with its disks, cards and snapshots, bring it to its power state, and return it."""
    vm = create_vm(context, vm_record(spec))
    disks = [_add_disk(context, inventory, disk) for disk in spec.disks]
    for number, vdi in enumerate(disks):
        create_vbd(context, vbd_record(vm, vdi, number))
    if spec.fill_together is not None:
        spec.fill_together([disk_uuid(context.pool, vdi) for vdi in disks])
    for vdi in disks if cbt else ():
        context.pool.disks.enable_cbt(disk_uuid(context.pool, vdi))
        context.db.set("VDI", vdi, "cbt_enabled", True)
    create_vbd(context, drive_record(vm, spec.iso, len(disks)))
    for number in range(spec.cards):
        network = spec.networks[number % len(spec.networks)] if spec.networks else inventory.network
        create_vif(context, card_record(vm, network, number))
    if spec.has_vtpm:
        context.db.create("VTPM", {"VM": vm, "is_unique": False, "is_protected": False})
    _bring_to(context, vm, inventory.hosts[spec.host % len(inventory.hosts)], spec.power)
    _set_what_creation_ignores(context, vm, spec)  # after the start, which would wait for the start delay
    for name in spec.snapshots:
        snapshot_vm(context, vm, name)
    return vm


def _add_disk(context: Context, inventory: Inventory, spec: DiskSpec) -> str:
    pool = context.pool
    if spec.clone_of:
        vdi = clone_vdi(pool, spec.clone_of)
        context.db.update("VDI", vdi, {"name_label": spec.name, "name_description": spec.description})
    else:
        vdi = create_vdi(pool, disk_record(spec, sr=spec.sr or inventory.sr))
    spec.fill(disk_uuid(pool, vdi))
    return vdi


def _set_what_creation_ignores(context: Context, vm: str, spec: MachineSpec) -> None:
    context.db.update(
        "VM",
        vm,
        {
            "ha_restart_priority": spec.restart_priority,
            "order": spec.order,
            "start_delay": spec.start_delay_s,
            "appliance": spec.appliance,
            "is_a_template": spec.is_template,
        },
    )


def _bring_to(context: Context, vm: str, host: str, power: str) -> None:
    if power == "Halted":
        return
    start_vm_on(context, vm, host, False, False)
    report_guest(context, vm)
    if power == "Paused":
        pause_vm(context, vm)
    if power == "Suspended":
        suspend_vm(context, vm)
