"""What may be done with a VM now, and why not: power states, running operations, templates, snapshots, guest features.

The order of the checks is the real pool's, because it decides which of several reasons a client sees. Invariant: a rule
only reads; the same rule answers ``allowed_operations`` and refuses a call.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import cast

from holdfast.lab.database import Database, Fields, Row
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules.vm_facts import VmFacts, gather_facts

__all__ = [
    "allowed_vm_operations",
    "allowed_vtpm_operations",
    "bad_power_state",
    "check_power_state",
    "check_vm_operation",
    "is_live",
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
_SPELLED = {
    **dict.fromkeys(("changing_VCPUs", "changing_memory_limits"), "(unknown operation)"),
    **dict.fromkeys(("create_template", "query_services"), "(unknown operation)"),
    "assert_operation_valid": "assertoperationvalid",
    "data_source_op": "data_sources_op",
}
"""Operations that the pool's errors do not know, or know by another name."""

_SAVES_MEMORY = frozenset({"suspend", "checkpoint", "pool_migrate", "migrate_send"})
_RESET_DISKS_FORBID = frozenset({"suspend", "checkpoint", "snapshot", "snapshot_with_quiesce"})

_FACTS_KEPT_MAX = 4096
"""So many kinds of VMs are remembered with what they allow: a pool of thousands has a few dozen."""


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


def check_vm_operation(db: Database, ref: str, operation: str, *, is_strict: bool = True) -> None:
    """Return when the operation may begin now; the pool's refusal otherwise.

    A check that is not strict does not ask what the guest can do.
    """
    refusal = _refusal(gather_facts(db, db.row("VM", ref)), ref, operation, is_strict=is_strict)
    if refusal is not None:
        raise refusal


def allowed_vm_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the VM now, for its record.

    A list that the row itself holds is an old one that the pool has not computed anew yet.
    """
    held = cast("list[str]", row.fields["allowed_operations"])
    return held or list(_allowed(gather_facts(db, row)))


@functools.lru_cache(maxsize=_FACTS_KEPT_MAX)
def _allowed(facts: VmFacts) -> tuple[str, ...]:
    return tuple(each for each in _OFFERED if _refusal(facts, "", each, is_strict=True) is None)


def allowed_vtpm_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the trusted platform module now, for its record."""
    vm = db.find("VM", str(row.fields["VM"]))
    return ["destroy"] if vm is not None and vm.fields["power_state"] == "Halted" else []


def _refusal(facts: VmFacts, ref: str, operation: str, *, is_strict: bool) -> ApiFailure | None:
    for check in (_by_state, _by_kind, _by_mobility, _by_guest, _by_devices, _by_membership):
        for code, *params in check(facts, operation, is_strict):
            return ApiFailure(code, *(ref if param is _SELF else param for param in params))
    return None


_SELF = "the VM itself"
"""Stands in an error for the VM's reference."""

_Errors = Iterator[tuple[str, ...]]


def _by_state(facts: VmFacts, operation: str, is_strict: bool) -> _Errors:
    for blocked, reason in facts.blocked:
        if blocked == operation:
            yield "OPERATION_BLOCKED", _SELF, reason
    wanted = _wanted_states(facts, operation)
    if facts.power_state not in wanted:
        yield "VM_BAD_POWER_STATE", _SELF, ", ".join(wanted).lower(), facts.power_state.lower()
    if facts.running and not _may_join(operation, [running for _, running in facts.running]):
        refs, operations = zip(*facts.running, strict=True)
        tasks, names = ",".join(refs), ",".join(map(_spelled, operations))
        if len(facts.running) > 1:
            tasks, names = f"{{{tasks}}}", f"{{{names}}}"
        yield "OTHER_OPERATION_IN_PROGRESS", "VM", _SELF, names, tasks


def _spelled(operation: str) -> str:
    """Return how errors call the operation."""
    return _SPELLED.get(operation, operation)


def _wanted_states(facts: VmFacts, operation: str) -> tuple[str, ...]:
    wanted = _POWER_STATES[operation]
    if operation in ("clone", "copy"):
        return ("Halted", "Suspended") if facts.is_a_snapshot or facts.clones_suspended else wanted
    if operation in ("changing_VCPUs", "changing_static_range", "changing_memory_limits"):
        return ("Halted", "Running") if facts.is_control_domain else wanted
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


def _by_kind(facts: VmFacts, operation: str, is_strict: bool) -> _Errors:
    if facts.is_a_template and not facts.is_a_snapshot:
        allowed = operation in _ON_TEMPLATES
        if not allowed and (operation not in _ON_OWN_TEMPLATES or facts.is_default_template):
            yield "VM_IS_TEMPLATE", _SELF, _spelled(operation)
    if facts.is_a_snapshot and operation not in _ON_SNAPSHOTS:
        yield "VM_IS_SNAPSHOT", _SELF, _spelled(operation)
    if operation == "provision" and not facts.is_a_template:
        yield ("PROVISION_ONLY_ALLOWED_ON_TEMPLATE",)
    if operation == "revert" and not facts.is_a_snapshot:
        yield ("REVERT_ONLY_ALLOWED_ON_SNAPSHOT",)


def _by_mobility(facts: VmFacts, operation: str, is_strict: bool) -> _Errors:
    if operation in _SAVES_MEMORY and is_strict and (facts.is_nested or facts.is_fixed):
        yield "VM_IS_IMMOBILE", _SELF
    if operation == "changing_dynamic_range" and is_strict and facts.is_nested:
        yield "VM_IS_USING_NESTED_VIRT", _SELF
    if facts.is_control_domain:
        if operation in ("changing_VCPUs", "destroy") and facts.is_domain_zero:
            yield "OPERATION_NOT_ALLOWED", "This operation is not allowed on dom0"
        if operation not in _ON_CONTROL_DOMAIN:
            yield "OPERATION_NOT_ALLOWED", "This operation is not allowed on a control domain"


def _by_guest(facts: VmFacts, operation: str, is_strict: bool) -> _Errors:
    """What the guest has to do for an operation it must be able to do."""
    is_able = not facts.is_live or facts.booted_paravirtual or facts.has_tools
    if operation in _SAVES_MEMORY and facts.is_live:
        if facts.cannot_suspend is not None:
            yield "VM_NON_SUSPENDABLE", _SELF, facts.cannot_suspend
        if not is_able and is_strict and "feature-suspend" not in facts.features:
            yield "VM_LACKS_FEATURE", _SELF
    wanted = {"clean_shutdown": "feature-poweroff", "clean_reboot": "feature-reboot"}.get(operation)
    goes_down = wanted is None or "feature-shutdown" in facts.features or wanted in facts.features
    if not goes_down and not is_able and is_strict:
        yield "VM_LACKS_FEATURE", _SELF
    if operation == "changing_VCPUs_live" and not is_able and "feature-vcpu-hotplug" not in facts.features:
        yield "VM_LACKS_FEATURE", _SELF
    if operation == "snapshot_with_quiesce":
        yield "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", _SELF


def _by_devices(facts: VmFacts, operation: str, is_strict: bool) -> _Errors:
    if operation in _RESET_DISKS_FORBID and facts.has_reset_disks:
        yield ("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION",)
    if operation == "pool_migrate" and facts.has_cached_reset_disks:
        yield ("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION",)
    if operation in _SAVES_MEMORY:
        if facts.has_pcis:
            yield "VM_HAS_PCI_ATTACHED", _SELF
        spared = {"migrate_send": "Halted", "checkpoint": "Suspended"}.get(operation)
        if facts.has_vgpus and facts.power_state != spared:
            yield "VM_HAS_VGPU", _SELF
    if operation in _SAVES_MEMORY | {"snapshot"} and facts.has_vusbs:
        yield "VM_HAS_VUSBS", _SELF


def _by_membership(facts: VmFacts, operation: str, is_strict: bool) -> _Errors:
    if operation == "make_into_template" and facts.appliance is not None:
        yield "VM_IS_PART_OF_AN_APPLIANCE", _SELF, facts.appliance
    if operation == "make_into_template" and facts.snapshot_schedule is not None:
        yield "VM_ASSIGNED_TO_SNAPSHOT_SCHEDULE", _SELF, facts.snapshot_schedule
    if operation == "query_services" and not facts.is_system_domain:
        yield "NOT_SYSTEM_DOMAIN", _SELF
    if operation == "create_vtpm" and facts.vtpms:
        yield "VTPM_MAX_AMOUNT_REACHED", str(facts.vtpms)
