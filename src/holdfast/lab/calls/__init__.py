"""The calls that have a behaviour of their own, by domain; everything else is derived from the datamodel."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lab.calls import (
    access,
    appliance,
    bios,
    blob,
    bond,
    cbt,
    certificates,
    diagnostics,
    guest_agent,
    high_availability,
    host,
    host_access,
    host_services,
    host_settings,
    interface,
    interface_settings,
    licensed,
    message,
    network,
    observer,
    outside,
    passthrough,
    pbd,
    pool,
    registry,
    schedule,
    session,
    storage,
    updates,
    vbd,
    vdi,
    vdi_copy,
    vif,
    vlan,
    vm,
    vm_copy,
    vm_fields,
    vm_memory,
    vm_migrate,
    vm_placement,
    vm_power,
    vm_revert,
    vm_services,
    vm_state,
    vtpm,
)
from holdfast.lab.calls.event import make_event_calls
from holdfast.lab.events import Events

__all__ = [
    "add_subject",
    "all_handlers",
    "await_guests",
    "create_network",
    "create_pool_vlan",
    "create_vbd",
    "create_vif",
    "create_vm",
    "derived_mac",
    "destroy_vm",
    "halt_vm",
    "new_metrics",
    "pause_vm",
    "remove_vm",
    "report_guest",
    "settle_guests",
    "snapshot_vm",
    "start_vm",
    "start_vm_on",
    "suspend_vm",
]

add_subject = access.add_subject
create_network = network.create_network
create_pool_vlan = vlan.create_pool_vlan
create_vm = vm.create
derived_mac = vif.derived_mac
destroy_vm = vm.destroy_vm
halt_vm = vm_state.take_down
new_metrics = vm_state.new_metrics
await_guests = guest_agent.await_guests
report_guest = guest_agent.report_guest
settle_guests = guest_agent.settle_guests
create_vbd = vbd.create
create_vif = vif.create_vif
pause_vm = vm_power.pause
remove_vm = vm.destroy
snapshot_vm = vm_copy.snapshot
start_vm = vm_power.start
start_vm_on = vm_power.start_on
suspend_vm = vm_power.suspend


def all_handlers(events: Events) -> dict[str, Callable[..., object]]:
    """Return every handler by the name of its call."""
    handlers: dict[str, Callable[..., object]] = {}
    for calls in (
        make_event_calls(events),
        access.calls,
        appliance.calls,
        bios.calls,
        blob.calls,
        bond.calls,
        high_availability.calls,
        host.calls,
        host_access.calls,
        host_services.calls,
        host_settings.calls,
        interface.calls,
        interface_settings.calls,
        schedule.calls,
        updates.calls,
        vlan.calls,
        cbt.calls,
        certificates.calls,
        diagnostics.calls,
        licensed.calls,
        observer.calls,
        outside.calls,
        network.calls,
        passthrough.calls,
        pbd.calls,
        message.calls,
        pool.calls,
        registry.calls,
        session.calls,
        storage.calls,
        vbd.calls,
        vdi.calls,
        vdi_copy.calls,
        vif.calls,
        vm.calls,
        vm_copy.calls,
        vm_fields.calls,
        vm_memory.calls,
        vm_migrate.calls,
        vm_placement.calls,
        vm_power.calls,
        vm_revert.calls,
        vm_services.calls,
        vtpm.calls,
    ):
        handlers |= calls.handlers
    return handlers
