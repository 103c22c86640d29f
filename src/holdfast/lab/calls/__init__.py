"""The calls that have a behaviour of their own, by domain; everything else is derived from the datamodel."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lab.calls import (
    access,
    cbt,
    message,
    network,
    pbd,
    pool,
    session,
    storage,
    vbd,
    vdi,
    vdi_copy,
    vif,
    vm,
    vm_copy,
    vm_memory,
    vm_power,
)
from holdfast.lab.calls.event import make_event_calls
from holdfast.lab.events import Events

__all__ = [
    "add_subject",
    "all_handlers",
    "create_vbd",
    "create_vif",
    "create_vm",
    "derived_mac",
    "destroy_vm",
    "halt_vm",
    "new_metrics",
    "start_vm",
]

add_subject = access.add_subject
create_vm = vm.create
derived_mac = vif.derived_mac
destroy_vm = vm.destroy_vm
halt_vm = vm_power.take_down
new_metrics = vm.new_metrics
create_vbd = vbd.create
create_vif = vif.create_vif
start_vm = vm_power.start


def all_handlers(events: Events) -> dict[str, Callable[..., object]]:
    """Return every handler by the name of its call."""
    handlers: dict[str, Callable[..., object]] = {}
    for calls in (
        make_event_calls(events),
        access.calls,
        cbt.calls,
        message.calls,
        network.calls,
        pbd.calls,
        pool.calls,
        session.calls,
        storage.calls,
        vbd.calls,
        vdi.calls,
        vdi_copy.calls,
        vif.calls,
        vm.calls,
        vm_copy.calls,
        vm_memory.calls,
        vm_power.calls,
    ):
        handlers |= calls.handlers
    return handlers
