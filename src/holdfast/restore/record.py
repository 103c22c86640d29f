"""A VM's saved record, turned into one that ``VM.create`` takes.

What is kept, what is volatile and what XAPI ignores at creation is listed here, field by field; a field of a newer XAPI
that nobody here knows is kept, because unknown fields are ignored by ``VM.create`` anyway and may matter there.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.model import JsonObject, JsonValue

__all__ = ["SavedDrive", "has_virtual_tpm", "saved_drives", "vm_record_for_create"]

NULL_REF = "OpaqueRef:NULL"
_NO_GENERATION = ("", "0:0")

_VOLATILE = frozenset(
    """
    uuid allowed_operations current_operations power_state resident_on scheduled_to_be_resident_on domid domarch
    consoles VIFs VBDs VGPUs VUSBs VTPMs crash_dumps metrics guest_metrics is_a_snapshot snapshot_of snapshots
    snapshot_time snapshot_info snapshot_metadata parent children blobs requires_reboot pending_guidances
    pending_guidances_recommended pending_guidances_full last_booted_record last_boot_CPU_flags memory_target
    memory_overhead transportable_snapshot_id secureboot_certificates_state suspend_VDI attached_PCIs
    is_control_domain is_default_template is_snapshot_from_vmpp is_vmss_snapshot protection_policy snapshot_schedule
    ha_always_run ha_restart_priority bios_strings blocked_operations groups
    """.split()
)
"""Fields that describe the running past, that the pool computes, or that are set by calls after creation."""

_PASSING_KEYS = ("import_task", "default_template")
"""Keys in other_config that tell of how the VM came to be, or would hide it among the pool's templates."""

Notes = list[tuple[str, str, str]]
"""``(adapted | impossible, subject, text)``"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedDrive:
    """A CD drive as it was saved."""

    position: str
    had_disc: bool
    record: JsonObject


def vm_record_for_create(
    saved: JsonObject, *, name: str, is_copy: bool, keep_identity: bool, fresh_generation: str
) -> tuple[JsonObject, Notes]:
    """Return the record for ``VM.create`` and notes on what differs.

    ``is_copy`` says that the original is still there. ``keep_identity`` keeps the MAC seed.
    """
    original = _vm_of(saved)
    record: JsonObject = {key: value for key, value in original.items() if key not in _VOLATILE}
    notes: Notes = []
    record["name_label"] = name
    record["is_a_template"] = False
    for field, subject in (("affinity", "home host"), ("appliance", "appliance"), ("suspend_SR", "suspend SR")):
        if record.get(field, NULL_REF) not in (NULL_REF, ""):
            notes.append(("adapted", subject, "not set; it refers to an object of the pool it came from"))
        record[field] = NULL_REF
    if record.get("generation_id", "") not in _NO_GENERATION:
        # A guest that goes back in time must be told, or a domain controller hands out numbers twice.
        record["generation_id"] = fresh_generation
        notes.append(("adapted", "generation id", "a fresh one, so that the guest knows that time went back"))
    record["other_config"], told = _other_config(original, is_copy=is_copy, keep_identity=keep_identity)
    notes.extend(told)
    notes.extend(_left_off(original))
    notes.extend(_lost_devices(original))
    return record, notes


def has_virtual_tpm(saved: JsonObject) -> bool:
    """Return whether the saved VM has a virtual TPM."""
    return bool(_vm_of(saved).get("VTPMs"))


def saved_drives(saved: JsonObject) -> list[SavedDrive]:
    """Return the CD drives of a saved VM, by position."""
    vbds = saved.get("VBD")
    drives = [
        SavedDrive(
            position=str(vbd.get("userdevice", "")), had_disc=vbd.get("VDI", NULL_REF) not in (NULL_REF, ""), record=vbd
        )
        for vbd in (vbds if isinstance(vbds, list) else [])
        if isinstance(vbd, dict) and vbd.get("type") == "CD"
    ]
    return sorted(drives, key=lambda each: each.position)


def _vm_of(saved: JsonObject) -> JsonObject:
    original = saved.get("VM")
    return original if isinstance(original, dict) else {}


def _other_config(original: JsonObject, *, is_copy: bool, keep_identity: bool) -> tuple[JsonObject, Notes]:
    found = original.get("other_config")
    kept: dict[str, JsonValue] = dict(found) if isinstance(found, dict) else {}
    notes: Notes = []
    for key in _PASSING_KEYS if keep_identity else (*_PASSING_KEYS, "mac_seed"):
        kept.pop(key, None)
    if is_copy and str(kept.get("auto_poweron", "false")).lower() == "true":
        del kept["auto_poweron"]
        notes.append(("adapted", "automatic start", "off, because the original would start beside this copy"))
    return {key: value for key, value in kept.items() if not key.startswith("holdfast:")}, notes


def _left_off(original: JsonObject) -> Notes:
    notes: Notes = []
    priority = original.get("ha_restart_priority")
    if priority:
        text = f"off (it was {str(priority)!r}), so that nothing starts the VM before you do; set it when it runs"
        notes.append(("adapted", "high availability", text))
    if original.get("power_state") == "Suspended":
        notes.append(("adapted", "power state", "the VM was suspended; its memory is not part of the point, it boots"))
    return notes


def _lost_devices(original: JsonObject) -> Notes:
    lost = (
        ("VGPUs", "virtual GPU", "not attached; attach one of the target pool"),
        ("VUSBs", "USB device", "not attached; attach one of the target pool"),
        ("attached_PCIs", "PCI device", "not attached; attach one of the target host"),
    )
    return [("adapted", subject, text) for field, subject, text in lost if original.get(field)]
