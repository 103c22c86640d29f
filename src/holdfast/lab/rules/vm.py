"""What may be done with a VM now, and why not: power states, running operations, templates, snapshots, guest features.

The order of the checks is the real pool's, because it decides which of several reasons a client sees. Invariant: a rule
only reads; the same rule answers ``allowed_operations`` and refuses a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from holdfast.lab.database import Database, Fields, Row
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules.guest import booted_paravirtual, cannot_suspend_reason, has_feature, has_tools

__all__ = [
    "allowed_vm_operations",
    "allowed_vtpm_operations",
    "bad_power_state",
    "check_power_state",
    "check_vm_operation",
    "is_live",
    "is_protected_default",
]

_ANY = ("Halted", "Paused", "Suspended", "Running")
_AWAKE = ("Paused", "Suspended", "Running")

_POWER_STATES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("snapshot", "metadata_export", "revert", "reverting", "power_state_reset", "query_services"), _ANY
    ),
    **dict.fromkeys(("assert_operation_valid", "update_allowed_operations"), _ANY),
    **dict.fromkeys(("checkpoint", "hard_shutdown", "shutdown", "get_boot_record"), _AWAKE),
    **dict.fromkeys(("export", "destroy", "create_template"), ("Halted", "Suspended")),
    **dict.fromkeys(("start", "start_on", "provision", "make_into_template", "create_vtpm"), ("Halted",)),
    **dict.fromkeys(("changing_NVRAM", "changing_shadow_memory"), ("Halted",)),
    **dict.fromkeys(("changing_VCPUs", "changing_static_range", "changing_memory_limits"), ("Halted",)),
    **dict.fromkeys(("suspend", "pause", "pool_migrate", "clean_shutdown", "clean_reboot"), ("Running",)),
    **dict.fromkeys(("call_plugin", "data_source_op", "send_sysrq", "send_trigger", "sysprep"), ("Running",)),
    **dict.fromkeys(("changing_memory_live", "awaiting_memory_live", "changing_VCPUs_live"), ("Running",)),
    **dict.fromkeys(("changing_shadow_memory_live", "snapshot_with_quiesce"), ("Running",)),
    **dict.fromkeys(("resume", "resume_on", "csvm"), ("Suspended",)),
    "unpause": ("Paused",),
    "hard_reboot": ("Paused", "Running"),
    "clone": ("Halted",),
    "copy": ("Halted",),
    "migrate_send": ("Halted", "Suspended", "Running"),
    "changing_dynamic_range": ("Halted", "Running"),
    "import": (),
}

_OFFERED = (
    "sysprep",
    "create_vtpm",
    "destroy",
    "metadata_export",
    "export",
    "make_into_template",
    "changing_NVRAM",
    "changing_VCPUs_live",
    "changing_shadow_memory",
    "changing_static_range",
    "changing_dynamic_range",
    "migrate_send",
    "pool_migrate",
    "resume_on",
    "resume",
    "suspend",
    "hard_reboot",
    "hard_shutdown",
    "clean_reboot",
    "clean_shutdown",
    "unpause",
    "pause",
    "start_on",
    "start",
    "provision",
    "snapshot_with_quiesce",
    "checkpoint",
    "revert",
    "copy",
    "clone",
    "snapshot",
)
"""What ``allowed_operations`` may mention, in the order in which the pool lists it."""

_ON_SNAPSHOTS = frozenset({"revert", "clone", "copy", "export", "destroy", "hard_shutdown", "metadata_export"})

_ON_TEMPLATES = frozenset(
    {
        "changing_NVRAM",
        "changing_VCPUs",
        "changing_dynamic_range",
        "changing_memory_limits",
        "changing_shadow_memory",
        "changing_static_range",
        "clone",
        "copy",
        "export",
        "metadata_export",
        "provision",
    }
)

_ON_OWN_TEMPLATES = frozenset({"destroy", "migrate_send"})
"""What only templates allow that did not come with the pool."""

_ON_CONTROL_DOMAIN = frozenset(
    {
        "awaiting_memory_live",
        "changing_VCPUs",
        "changing_dynamic_range",
        "changing_memory_limits",
        "changing_memory_live",
        "changing_static_range",
        "data_source_op",
        "destroy",
        "metadata_export",
        "start",
        "start_on",
    }
)

_TOGETHER = (
    frozenset({"clone", "copy", "export"}),
    frozenset({"snapshot", "checkpoint"}),
    frozenset({"get_boot_record"}),
)
"""Operations that may run on one VM at the same time."""

_INTO_MIGRATION = frozenset({"metadata_export", "clean_shutdown", "clean_reboot"})
_SAVES_MEMORY = frozenset({"suspend", "checkpoint", "pool_migrate", "migrate_send"})
_RESET_DISKS_FORBID = frozenset({"suspend", "checkpoint", "snapshot", "snapshot_with_quiesce"})

_Refusals = Iterator[ApiFailure]


def bad_power_state(ref: str, *, wanted: tuple[str, ...], actual: str) -> ApiFailure:
    """Return the refusal for a power state that does not fit."""
    return ApiFailure("VM_BAD_POWER_STATE", ref, ", ".join(wanted).lower(), actual.lower())


def check_power_state(db: Database, ref: str, *wanted: str) -> None:
    """Return when the VM is in one of these states; the refusal of calls that check it by themselves otherwise."""
    actual = db.text("VM", ref, "power_state")
    if actual not in wanted:
        raise ApiFailure("VM_BAD_POWER_STATE", ref, ";".join(wanted).lower(), actual.lower())


def is_live(fields: Fields) -> bool:
    """Whether the VM has a domain."""
    return fields["power_state"] in ("Running", "Paused")


def is_protected_default(fields: Fields) -> bool:
    """Whether the VM is a template that came with the pool."""
    flag = cast("dict[str, str]", fields["other_config"]).get("default_template", "")
    return bool(fields["is_default_template"]) or flag == "1" or flag.lower() == "true"


def check_vm_operation(db: Database, ref: str, operation: str, *, is_strict: bool = True) -> None:
    """Return when the operation may begin now; the pool's refusal otherwise.

    A check that is not strict does not ask what the guest can do.
    """
    refusal = _refusal(db, db.row("VM", ref), operation, is_strict=is_strict)
    if refusal is not None:
        raise refusal


def allowed_vm_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the VM now, for its record.

    A list that the row itself holds is an old one that the pool has not computed anew yet.
    """
    held = cast("list[str]", row.fields["allowed_operations"])
    if held:
        return held
    return [operation for operation in _OFFERED if _refusal(db, row, operation, is_strict=True) is None]


def allowed_vtpm_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the trusted platform module now, for its record."""
    vm = db.find("VM", str(row.fields["VM"]))
    return ["destroy"] if vm is not None and vm.fields["power_state"] == "Halted" else []


def _refusal(db: Database, row: Row, operation: str, *, is_strict: bool) -> ApiFailure | None:
    checks: tuple[Callable[[], _Refusals], ...] = (
        lambda: _by_state(db, row, operation),
        lambda: _by_kind(row, operation),
        lambda: _by_mobility(db, row, operation, is_strict=is_strict),
        lambda: _by_guest(db, row, operation, is_strict=is_strict),
        lambda: _by_devices(db, row, operation),
        lambda: _by_membership(db, row, operation),
    )
    return next((refusal for check in checks for refusal in check()), None)


def _by_state(db: Database, row: Row, operation: str) -> _Refusals:
    fields = row.fields
    blocked = cast("dict[str, str]", fields["blocked_operations"])
    if operation in blocked:
        yield ApiFailure("OPERATION_BLOCKED", row.ref, blocked[operation])
    power, wanted = str(fields["power_state"]), _wanted_states(db, fields, operation)
    if power not in wanted:
        yield bad_power_state(row.ref, wanted=wanted, actual=power)
    running = cast("dict[str, str]", fields["current_operations"])
    if running and not _may_join(operation, list(running.values())):
        tasks, names = list(running), list(running.values())
        if len(running) > 1:
            tasks, names = [f"{{{','.join(tasks)}}}"], [f"{{{','.join(names)}}}"]
        yield ApiFailure("OTHER_OPERATION_IN_PROGRESS", "VM", row.ref, names[0], tasks[0])


def _wanted_states(db: Database, fields: Fields, operation: str) -> tuple[str, ...]:
    wanted = _POWER_STATES[operation]
    if operation in ("clone", "copy"):
        config = cast("dict[str, str]", db.rows("pool")[0].fields["other_config"])
        if fields["is_a_snapshot"] or config.get("allow_clone_suspended_vm") == "true":
            return ("Halted", "Suspended")
    if operation in ("changing_VCPUs", "changing_static_range", "changing_memory_limits"):
        return ("Halted", "Running") if fields["is_control_domain"] else wanted
    return wanted


def _may_join(operation: str, running: list[str]) -> bool:
    if any({operation, *running} <= group for group in _TOGETHER):
        return True
    if operation == "hard_shutdown":
        return "hard_shutdown" not in running
    if operation == "hard_reboot":
        return not {"hard_shutdown", "hard_reboot"} & set(running)
    if operation in _INTO_MIGRATION:
        return running == ["migrate_send"]
    return operation == "snapshot" and running == ["snapshot_with_quiesce"]


def _by_kind(row: Row, operation: str) -> _Refusals:
    fields = row.fields
    if fields["is_a_template"] and not fields["is_a_snapshot"]:
        allowed = operation in _ON_TEMPLATES
        if not allowed and (operation not in _ON_OWN_TEMPLATES or is_protected_default(fields)):
            yield ApiFailure("VM_IS_TEMPLATE", row.ref, operation)
    if fields["is_a_snapshot"] and operation not in _ON_SNAPSHOTS:
        yield ApiFailure("VM_IS_SNAPSHOT", row.ref, operation)
    if operation == "provision" and not fields["is_a_template"]:
        yield ApiFailure("PROVISION_ONLY_ALLOWED_ON_TEMPLATE")
    if operation == "revert" and not fields["is_a_snapshot"]:
        yield ApiFailure("REVERT_ONLY_ALLOWED_ON_SNAPSHOT")


def _by_mobility(db: Database, row: Row, operation: str, *, is_strict: bool) -> _Refusals:
    fields = row.fields
    is_nested = _is_set(db, fields, "nested_virt", "nested-virt")
    if operation in _SAVES_MEMORY and is_strict and (is_nested or _is_set(db, fields, "nomigrate", "nomigrate")):
        yield ApiFailure("VM_IS_IMMOBILE", row.ref)
    if operation == "changing_dynamic_range" and is_strict and is_nested:
        yield ApiFailure("VM_IS_USING_NESTED_VIRT", row.ref)
    if fields["is_control_domain"]:
        if operation in ("changing_VCPUs", "destroy"):
            yield ApiFailure("OPERATION_NOT_ALLOWED", "This operation is not allowed on dom0")
        if operation not in _ON_CONTROL_DOMAIN:
            yield ApiFailure("OPERATION_NOT_ALLOWED", "This operation is not allowed on a control domain")


def _is_set(db: Database, fields: Fields, metric: str, key: str) -> bool:
    """Whether the running guest has the property; one that never ran is judged by what it would start with."""
    metrics = db.find("VM_metrics", str(fields["metrics"]))
    if metrics is not None:
        return bool(metrics.fields[metric])
    return cast("dict[str, str]", fields["platform"]).get(key, "").lower() in ("1", "true")


def _by_guest(db: Database, row: Row, operation: str, *, is_strict: bool) -> _Refusals:
    """What the guest has to do for an operation it must be able to do."""
    fields = row.fields
    live = is_live(fields)
    metrics = db.find("VM_guest_metrics", str(fields["guest_metrics"]))
    is_able = not live or booted_paravirtual(db, fields) or has_tools(metrics)
    if operation in _SAVES_MEMORY and live:
        reason = cannot_suspend_reason(metrics)
        if reason is not None:
            yield ApiFailure("VM_NON_SUSPENDABLE", row.ref, reason)
        if not is_able and is_strict and not has_feature(metrics, "feature-suspend"):
            yield ApiFailure("VM_LACKS_FEATURE", row.ref)
    wanted = {"clean_shutdown": "feature-poweroff", "clean_reboot": "feature-reboot"}.get(operation)
    goes_down = wanted is None or has_feature(metrics, "feature-shutdown") or has_feature(metrics, wanted)
    if not goes_down and not is_able and is_strict:
        yield ApiFailure("VM_LACKS_FEATURE", row.ref)
    if operation == "changing_VCPUs_live" and not is_able and not has_feature(metrics, "feature-vcpu-hotplug"):
        yield ApiFailure("VM_LACKS_FEATURE", row.ref)
    if operation == "snapshot_with_quiesce":
        yield ApiFailure("VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", row.ref)


def _by_devices(db: Database, row: Row, operation: str) -> _Refusals:
    fields = row.fields
    if operation in _RESET_DISKS_FORBID and any(_is_reset(vdi) for vdi in _disks(db, fields)):
        yield ApiFailure("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    if operation == "pool_migrate" and any(_is_reset(vdi) and _is_cached(vdi) for vdi in _disks(db, fields)):
        yield ApiFailure("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    if operation in _SAVES_MEMORY:
        if fields["attached_PCIs"]:
            yield ApiFailure("VM_HAS_PCI_ATTACHED", row.ref)
        spared = {"migrate_send": "Halted", "checkpoint": "Suspended"}.get(operation)
        if fields["VGPUs"] and fields["power_state"] != spared:
            yield ApiFailure("VM_HAS_VGPU", row.ref)
    if operation in _SAVES_MEMORY | {"snapshot"} and fields["VUSBs"]:
        yield ApiFailure("VM_HAS_VUSBS", row.ref)


def _disks(db: Database, fields: Fields) -> Iterator[Fields]:
    for vbd in cast("list[str]", fields["VBDs"]):
        found = db.find("VBD", vbd)
        vdi = db.find("VDI", str(found.fields["VDI"])) if found is not None else None
        if vdi is not None:
            yield vdi.fields


def _is_reset(vdi: Fields) -> bool:
    return vdi["on_boot"] == "reset" or cast("dict[str, str]", vdi["sm_config"]).get("on_boot") == "reset"


def _is_cached(vdi: Fields) -> bool:
    return cast("dict[str, str]", vdi["sm_config"]).get("caching", "").lower() in ("1", "true")


def _by_membership(db: Database, row: Row, operation: str) -> _Refusals:
    fields = row.fields
    if operation == "make_into_template":
        for cls, name, code in (
            ("VM_appliance", "appliance", "VM_IS_PART_OF_AN_APPLIANCE"),
            ("VMSS", "snapshot_schedule", "VM_ASSIGNED_TO_SNAPSHOT_SCHEDULE"),
        ):
            ref = str(fields[name])
            if ref != NULL_REF and db.exists(cls, ref):
                yield ApiFailure(code, row.ref, ref)
    if operation == "query_services":
        flag = cast("dict[str, str]", fields["other_config"]).get("is_system_domain", "")
        if flag.lower() not in ("1", "true"):
            yield ApiFailure("NOT_SYSTEM_DOMAIN", row.ref)
    vtpms = cast("list[str]", fields["VTPMs"])
    if operation == "create_vtpm" and vtpms:
        yield ApiFailure("VTPM_MAX_AMOUNT_REACHED", str(len(vtpms)))
