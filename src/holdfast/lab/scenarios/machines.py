"""The VMs of a scenario, with records as rich as those that people have: tags, NVRAM, cards, several disks."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.core import GIB
from holdfast.lab.calls import create_vbd, create_vif, create_vm, start_vm
from holdfast.lab.context import Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.scenarios.inventory import Inventory
from holdfast.lab.volumes import create_vdi, disk_uuid, refresh_sr

__all__ = ["DiskSpec", "Fill", "MachineSpec", "add_machine"]

Fill = Callable[[str], None]
"""Writes the content of the disk with this uuid into the store."""


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """One disk of a VM to be."""

    name: str
    size_bytes: int
    fill: Fill


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """One VM to be."""

    name: str
    description: str
    disks: tuple[DiskSpec, ...]
    tags: tuple[str, ...] = ()
    memory_bytes: int = GIB
    vcpus: int = 2
    has_uefi: bool = False
    cards: int = 1
    other_config: dict[str, str] = field(default_factory=dict)


def add_machine(context: Context, inventory: Inventory, spec: MachineSpec, *, cbt: bool) -> str:
    """Make the VM with its disks and cards, start it, and return it."""
    pool, db = context.pool, context.db
    vm = create_vm(context, _record(spec))
    for number, disk in enumerate(spec.disks):
        vdi = create_vdi(pool, _disk_record(disk, inventory.sr))
        disk.fill(disk_uuid(pool, vdi))
        if cbt:
            pool.disks.enable_cbt(disk_uuid(pool, vdi))
            db.set("VDI", vdi, "cbt_enabled", True)
        create_vbd(context, _attachment(vm, vdi, number))
    create_vbd(context, _attachment(vm, NULL_REF, len(spec.disks), is_drive=True))
    for number in range(spec.cards):
        create_vif(context, _card(vm, inventory.network, number))
    start_vm(context, vm, False, False)
    refresh_sr(pool, inventory.sr)
    return vm


def _record(spec: MachineSpec) -> Fields:
    nvram = base64.b64encode(hashlib.sha256(spec.name.encode()).digest() * 16).decode()
    boot = {"order": "cd", "firmware": "uefi" if spec.has_uefi else "bios"}
    return {
        "name_label": spec.name,
        "name_description": spec.description,
        "user_version": 1,
        "is_a_template": False,
        "affinity": NULL_REF,
        "memory_static_max": spec.memory_bytes,
        "memory_dynamic_max": spec.memory_bytes,
        "memory_dynamic_min": spec.memory_bytes,
        "memory_static_min": spec.memory_bytes // 2,
        "VCPUs_params": {"weight": "256"},
        "VCPUs_max": spec.vcpus,
        "VCPUs_at_startup": spec.vcpus,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "PV_bootloader": "",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": boot,
        "HVM_shadow_multiplier": 1.0,
        "platform": {
            "acpi": "1",
            "apic": "true",
            "pae": "true",
            "nx": "true",
            "viridian": "false",
            "timeoffset": "0",
            "device-model": "qemu-upstream-uefi" if spec.has_uefi else "qemu-upstream-compat",
            "secureboot": "false",
        },
        "PCI_bus": "",
        "other_config": {"base_template_name": "Debian Trixie 13", "install-methods": "cdrom,nfs", **spec.other_config},
        "recommendations": '<restrictions><restriction field="memory-static-max" max="137438953472"/></restrictions>',
        "ha_always_run": False,
        "ha_restart_priority": "",
        "tags": list(spec.tags),
        "xenstore_data": {"vm-data": ""},
        "start_delay": 0,
        "shutdown_delay": 0,
        "order": 0,
        "appliance": NULL_REF,
        "suspend_SR": NULL_REF,
        "version": 0,
        "generation_id": "7316224831537212133:4188512336543231091",
        "hardware_platform_version": 2,
        "has_vendor_device": False,
        "reference_label": "debian-13",
        "domain_type": "hvm",
        "NVRAM": {"EFI-variables": nvram} if spec.has_uefi else {},
        "blocked_operations": {},
        "bios_strings": {},
    }


def _disk_record(disk: DiskSpec, sr: str) -> Fields:
    return {
        "name_label": disk.name,
        "name_description": "",
        "SR": sr,
        "virtual_size": disk.size_bytes,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": {},
        "tags": [],
    }


def _attachment(vm: str, vdi: str, number: int, *, is_drive: bool = False) -> Fields:
    return {
        "VM": vm,
        "VDI": vdi,
        "userdevice": str(number),
        "bootable": number == 0,
        "mode": "RO" if is_drive else "RW",
        "type": "CD" if is_drive else "Disk",
        "unpluggable": not is_drive,
        "empty": is_drive,
        "other_config": {} if is_drive else {"owner": ""},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }


def _card(vm: str, network: str, number: int) -> Fields:
    return {
        "VM": vm,
        "network": network,
        "device": str(number),
        "MAC": "",
        "MTU": 1500,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        "locking_mode": "network_default",
        "ipv4_allowed": [],
        "ipv6_allowed": [],
    }
