"""Calls of appliances: groups of VMs that start and stop in their order."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lab.calls.common import check_licence
from holdfast.lab.calls.vm_power import clean_shutdown, hard_shutdown, shutdown, start
from holdfast.lab.calls.vm_services import assert_can_be_recovered, get_srs_required_for_recovery
from holdfast.lab.context import CallSet, Context
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import check_appliance_operation

__all__ = ["calls"]

calls = CallSet()

OnVm = Callable[[Context, str], str]


def _perform(context: Context, appliance: str, operation: str, on_vm: OnVm, *, wanted: str, first_last: bool) -> str:
    """Do it to each VM that is not yet as wanted, order by order; what failed is told at the end."""
    db = context.db
    db.row("VM_appliance", appliance)

    def check() -> None:
        check_appliance_operation(db, appliance, operation)

    with context.pool.operations.running("VM_appliance", appliance, operation, task=context.task, check=check):
        vms = [vm for vm in db.texts("VM_appliance", appliance, "VMs") if db.text("VM", vm, "power_state") != wanted]
        vms.sort(key=lambda vm: db.number("VM", vm, "order"), reverse=first_last)
        for vm in vms:
            try:
                on_vm(context, vm)
            except ApiFailure:
                continue  # whoever is not as wanted at the end is named
        failed = [vm for vm in vms if db.text("VM", vm, "power_state") != wanted]
        if failed:
            raise ApiFailure("OPERATION_PARTIALLY_FAILED", f"VM_appliance.{operation}", *failed)
    return ""


@calls.on("VM_appliance.assert_can_be_recovered")
def assert_appliance_can_be_recovered(context: Context, appliance: str, session: str) -> str:
    """Return when the other pool has the storage that the VMs need."""
    for vm in context.db.texts("VM_appliance", appliance, "VMs"):
        assert_can_be_recovered(context, vm, session)
    return ""


@calls.on("VM_appliance.get_SRs_required_for_recovery")
def get_appliance_srs_required_for_recovery(context: Context, appliance: str, session: str) -> list[str]:
    """Return the storage that the other pool lacks."""
    vms = context.db.texts("VM_appliance", appliance, "VMs")
    return list(dict.fromkeys(sr for vm in vms for sr in get_srs_required_for_recovery(context, vm, session)))


@calls.on("VM_appliance.start")
def start_appliance(context: Context, appliance: str, paused: bool) -> str:
    """Start the VMs, lowest order first."""
    check_licence(context, "vm_appliance_start", "VM_appliance_start")

    def start_one(context: Context, vm: str) -> str:
        return start(context, vm, paused, False)

    wanted = "Paused" if paused else "Running"
    return _perform(context, appliance, "start", start_one, wanted=wanted, first_last=False)


@calls.on("VM_appliance.clean_shutdown")
def clean_shutdown_appliance(context: Context, appliance: str) -> str:
    """Let the guests shut themselves down, highest order first."""
    return _perform(context, appliance, "clean_shutdown", clean_shutdown, wanted="Halted", first_last=True)


@calls.on("VM_appliance.hard_shutdown")
def hard_shutdown_appliance(context: Context, appliance: str) -> str:
    """Pull the plugs, highest order first."""
    return _perform(context, appliance, "hard_shutdown", hard_shutdown, wanted="Halted", first_last=True)


@calls.on("VM_appliance.shutdown")
def shutdown_appliance(context: Context, appliance: str) -> str:
    """Let the guests shut themselves down; pull the plugs of those that cannot."""
    return _perform(context, appliance, "shutdown", shutdown, wanted="Halted", first_last=True)
