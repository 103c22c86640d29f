"""A VM's record: all of it for the restore point, and what of it a new VM can be made from.

Invariant: a reference into the old pool never travels into a new VM; it would point at nothing, or at a stranger.
"""

from __future__ import annotations

from holdfast.model import JsonObject, JsonValue
from holdfast.xapi.calls import Calls
from holdfast.xapi.records import NULL_REF, refs, text

__all__ = ["describe_vm", "new_vm_record"]

_DEFAULTS: JsonObject = {
    "name_label": "",
    "name_description": "",
    "user_version": "1",
    "is_a_template": False,
    "affinity": NULL_REF,
    "memory_static_max": "1073741824",
    "memory_dynamic_max": "1073741824",
    "memory_dynamic_min": "1073741824",
    "memory_static_min": "536870912",
    "VCPUs_params": {},
    "VCPUs_max": "1",
    "VCPUs_at_startup": "1",
    "actions_after_shutdown": "destroy",
    "actions_after_reboot": "restart",
    "actions_after_crash": "restart",
    "PV_bootloader": "",
    "PV_kernel": "",
    "PV_ramdisk": "",
    "PV_args": "",
    "PV_bootloader_args": "",
    "PV_legacy_args": "",
    "HVM_boot_policy": "",
    "HVM_boot_params": {},
    "HVM_shadow_multiplier": 1.0,
    "platform": {},
    "PCI_bus": "",
    "other_config": {},
    "recommendations": "",
}
"""Fields that VM.create demands; an older pool's record may lack some."""

_CARRIED = (
    "actions_after_softreboot",
    "domain_type",
    "generation_id",
    "hardware_platform_version",
    "has_vendor_device",
    "NVRAM",
    "order",
    "reference_label",
    "shutdown_delay",
    "start_delay",
    "tags",
    "version",
    "xenstore_data",
)
"""Fields that VM.create honours where they are given."""

_MEMBERS = (("VBD", "VBDs"), ("VIF", "VIFs"), ("VTPM", "VTPMs"), ("VGPU", "VGPUs"), ("VUSB", "VUSBs"))


def new_vm_record(saved: JsonObject) -> JsonObject:
    """Return the record of a new, halted VM like the saved one.

    High availability is left off: it would start the VM by itself, beside the original. The generation id is taken as
    it is given; whoever restores decides whether the guest is to notice.
    """
    record = {field: saved.get(field, default) for field, default in _DEFAULTS.items()}
    record |= {field: saved[field] for field in _CARRIED if field in saved}
    # The host it preferred is named by a reference of the old pool.
    record["affinity"] = NULL_REF
    record["is_a_template"] = False
    return record


def describe_vm(calls: Calls, ref: str) -> JsonObject:
    """Return the VM's record and those of everything that belongs to it, by class name."""
    vm = calls.record("VM", ref)
    found: dict[str, JsonValue] = {"VM": vm}
    members = {kind: _records(calls, kind, refs(vm, field)) for kind, field in _MEMBERS}
    disks = _records(calls, "VDI", _named(members["VBD"], "VDI"))
    networks = _records(calls, "network", _named(members["VIF"], "network"))
    for kind, records in (*members.items(), ("VDI", disks), ("network", networks)):
        found[kind] = list(records)
    found["VM_guest_metrics"] = calls.try_record("VM_guest_metrics", text(vm, "guest_metrics", NULL_REF)) or {}
    return found


def _records(calls: Calls, kind: str, wanted: list[str]) -> list[JsonObject]:
    return [record for ref in wanted if (record := calls.try_record(kind, ref)) is not None]


def _named(records: list[JsonObject], field: str) -> list[str]:
    return list(dict.fromkeys(text(record, field, NULL_REF) for record in records))
