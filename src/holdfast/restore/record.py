"""A VM's saved record, turned into one that ``VM.create`` takes.

What is kept, what is volatile and what XAPI ignores at creation is listed here, field by field; a field of a newer XAPI
that nobody here knows is kept, because unknown fields are ignored by ``VM.create`` anyway and may matter there.
"""

from __future__ import annotations

from holdfast.model import JsonObject

__all__ = ["vm_record_for_create"]

NULL_REF = "OpaqueRef:NULL"

_VOLATILE = frozenset(
    """
    uuid allowed_operations current_operations power_state resident_on scheduled_to_be_resident_on domid domarch
    consoles VIFs VBDs VGPUs VUSBs VTPMs crash_dumps metrics guest_metrics is_a_snapshot snapshot_of snapshots
    snapshot_time snapshot_info snapshot_metadata parent children blobs requires_reboot pending_guidances
    pending_guidances_recommended pending_guidances_full last_booted_record last_boot_CPU_flags memory_target
    memory_overhead transportable_snapshot_id secureboot_certificates_state suspend_VDI attached_PCIs
    is_control_domain is_default_template is_snapshot_from_vmpp is_vmss_snapshot protection_policy snapshot_schedule
    ha_always_run bios_strings blocked_operations groups
    """.split()
)
"""Fields that describe the running past, that the pool computes, or that are set by calls after creation."""


def vm_record_for_create(
    saved: JsonObject, *, name: str, keep_identity: bool, fresh_generation: str
) -> tuple[JsonObject, list[tuple[str, str, str]]]:
    """Return the record for ``VM.create`` and notes ``(adapted | impossible, subject, text)`` on what differs.

    ``keep_identity`` keeps the MAC seed and the generation id, for a VM that takes the place of its lost original.
    """
    original = saved.get("VM")
    original = original if isinstance(original, dict) else {}
    record: JsonObject = {key: value for key, value in original.items() if key not in _VOLATILE}
    notes: list[tuple[str, str, str]] = []
    record["name_label"] = name
    record["is_a_template"] = False
    for field, subject in (("affinity", "home host"), ("appliance", "appliance"), ("suspend_SR", "suspend SR")):
        if record.get(field, NULL_REF) not in (NULL_REF, ""):
            notes.append(("adapted", subject, "not set; it refers to an object of the pool it came from"))
        record[field] = NULL_REF
    other_config = record.get("other_config")
    kept = dict(other_config) if isinstance(other_config, dict) else {}
    if not keep_identity:
        kept.pop("mac_seed", None)
        if record.get("generation_id"):
            record["generation_id"] = fresh_generation
            notes.append(("adapted", "generation id", "a fresh one, because this is a copy"))
    record["other_config"] = {key: value for key, value in kept.items() if not key.startswith("holdfast:")}
    notes.extend(_lost_devices(original))
    return record, notes


def _lost_devices(original: JsonObject) -> list[tuple[str, str, str]]:
    lost = (
        ("VTPMs", "impossible", "virtual TPM", "its contents cannot be set through the API; the VM gets none"),
        ("VGPUs", "adapted", "virtual GPU", "not attached; attach one of the target pool"),
        ("VUSBs", "adapted", "USB device", "not attached; attach one of the target pool"),
        ("attached_PCIs", "adapted", "PCI device", "not attached; attach one of the target host"),
    )
    notes = [(kind, subject, text) for field, kind, subject, text in lost if original.get(field)]
    if original.get("power_state") == "Suspended":
        notes.append(("adapted", "power state", "the VM was suspended; its memory is not part of the point, it boots"))
    return notes
