"""What the constructors of VMs, disks, attachments and cards are given for a scenario's machines.

Invariant: every field that a constructor demands is there, with what the pool's own management tools would write.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from holdfast.core import limits
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF

if TYPE_CHECKING:
    from holdfast.lab.scenarios.machines import DiskSpec, MachineSpec

__all__ = ["card_record", "disk_record", "drive_record", "vbd_record", "vm_record"]

_NO_QUALITY_OF_SERVICE: Fields = {"qos_algorithm_type": "", "qos_algorithm_params": {}}


def vm_record(spec: MachineSpec) -> Fields:
    """Return the record of a VM."""
    return {
        **_identity(spec),
        **_processor_and_memory(spec),
        **_boot(spec),
        **_NOTHING_SET,
        "platform": _platform(spec),
        "other_config": {
            "base_template_name": spec.system.template,
            "install-methods": "cdrom" if spec.system.is_windows else "cdrom,nfs",
            **spec.other_config,
        },
        "reference_label": spec.system.reference_label,
        "has_vendor_device": spec.system.is_windows and spec.has_uefi,
    }


def _identity(spec: MachineSpec) -> Fields:
    return {
        "name_label": spec.name,
        "name_description": spec.description,
        "tags": list(spec.tags),
        "user_version": 1,
        "version": 0,
        "is_a_template": False,
        "affinity": NULL_REF,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "recommendations": '<restrictions><restriction field="memory-static-max" max="137438953472"/></restrictions>',
    }


def _processor_and_memory(spec: MachineSpec) -> Fields:
    return {
        "memory_static_max": spec.memory_bytes,
        "memory_dynamic_max": spec.memory_bytes,
        "memory_dynamic_min": spec.memory_bytes,
        "memory_static_min": spec.memory_bytes // 2,
        "VCPUs_params": {"weight": "256"},
        "VCPUs_max": spec.vcpus,
        "VCPUs_at_startup": spec.vcpus,
    }


def _boot(spec: MachineSpec) -> Fields:
    nvram = base64.b64encode(hashlib.sha256(spec.name.encode()).digest() * 16).decode()
    return {
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "cd", "firmware": "uefi" if spec.has_uefi else "bios"},
        "HVM_shadow_multiplier": 1.0,
        "domain_type": "hvm",
        "NVRAM": {"EFI-variables": nvram} if spec.has_uefi else {},
        "hardware_platform_version": 2,
        "generation_id": "7316224831537212133:4188512336543231091",
    }


def _platform(spec: MachineSpec) -> dict[str, str]:
    platform = {
        "acpi": "1",
        "apic": "true",
        "pae": "true",
        "nx": "true",
        "viridian": str(spec.system.is_windows).lower(),
        "timeoffset": "3600" if spec.system.is_windows else "0",
        "device-model": "qemu-upstream-uefi" if spec.has_uefi else "qemu-upstream-compat",
        "secureboot": str(spec.has_secure_boot).lower(),
    }
    return platform | ({"vtpm": "true"} if spec.has_vtpm else {})


_NOTHING_SET: Fields = {
    "PV_bootloader": "",
    "PV_kernel": "",
    "PV_ramdisk": "",
    "PV_args": "",
    "PV_bootloader_args": "",
    "PV_legacy_args": "",
    "PCI_bus": "",
    "ha_always_run": False,
    "ha_restart_priority": "",
    "xenstore_data": {"vm-data": ""},
    "start_delay": 0,
    "shutdown_delay": 0,
    "order": 0,
    "appliance": NULL_REF,
    "suspend_SR": NULL_REF,
    "blocked_operations": {},
    "bios_strings": {},
}


def disk_record(disk: DiskSpec, *, sr: str) -> Fields:
    """Return the record of an empty disk; one that is too large for a VHD is a qcow2 image."""
    is_large = disk.size_bytes > limits.VHD_DISK_BYTES_MAX
    return {
        "name_label": disk.name,
        "name_description": disk.description,
        "SR": sr,
        "virtual_size": disk.size_bytes,
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": {"image-format": "qcow2"} if is_large else {},
        "tags": [],
    }


def vbd_record(vm: str, vdi: str, number: int) -> Fields:
    """Return the record of a disk's attachment; the machine boots from the first."""
    return {
        **_NO_QUALITY_OF_SERVICE,
        "VM": vm,
        "VDI": vdi,
        "userdevice": str(number),
        "bootable": number == 0,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": True,
        "empty": False,
        "other_config": {"owner": ""},
    }


def drive_record(vm: str, iso: str, number: int) -> Fields:
    """Return the record of a CD drive, with what is in it, or with nothing."""
    changes: Fields = {"mode": "RO", "type": "CD", "unpluggable": False, "empty": iso == NULL_REF, "other_config": {}}
    return {**vbd_record(vm, iso, number), **changes}


def card_record(vm: str, network: str, number: int) -> Fields:
    """Return the record of a network card whose address the pool chooses."""
    return {
        **_NO_QUALITY_OF_SERVICE,
        "VM": vm,
        "network": network,
        "device": str(number),
        "MAC": "",
        "MTU": 1500,
        "other_config": {},
        "locking_mode": "network_default",
        "ipv4_allowed": [],
        "ipv6_allowed": [],
    }
