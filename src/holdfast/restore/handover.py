"""Handing a restored VM to its owner: last settings, ledger closed, marks off, started when asked.

Invariant: the VM is complete before it comes here, so nothing that fails from now on may cost it; it is told instead.
Keeping the VM's line is the one moment of handing over: before it a sweep removes VM and disks, after it neither.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from holdfast.core import HoldfastError
from holdfast.model import RUN_TAG, DiskUuid, OwnedKind, VmUuid
from holdfast.restore.make import Making
from holdfast.runs import LedgerLine, LedgerState
from holdfast.xapi import TaggedKind

__all__ = ["hand_over", "start_vm"]


def hand_over(making: Making, vm: VmUuid) -> list[str]:
    """Give the VM to its owner and return what did not work, a sentence each. Safe to run twice."""
    problems = [*_set_bios_strings(making, vm)]
    lines = [line for line in making.ledger.lines(run=making.context.run_id) if line.state is not LedgerState.GONE]
    for line in sorted(lines, key=lambda each: each.kind != OwnedKind.VM.value):
        making.ledger.keep(line.id, why="handed over to its owner")
    for line in lines:
        problems += _free_disk(making, line)
        problems += _try(making, f"the mark on {line.name!r} stays", functools.partial(_untag, making, line))
    blocked = _saved_map(making, "blocked_operations")
    if blocked:
        told = "blocked operations could not be set"
        problems += _try(making, told, lambda: making.pool.set_blocked_operations(vm, blocked))
    return problems


def start_vm(making: Making, vm: VmUuid) -> str:
    """Start the VM; return why it does not run, or an empty text. Safe to run twice."""
    if making.pool.vm(vm).power_state.value == "Running":
        return ""
    problems = _try(making, "the VM is restored but could not be started", lambda: making.pool.start_vm(vm))
    return "".join(problems)


def _free_disk(making: Making, line: LedgerLine) -> list[str]:
    """Take a disk away from the control domain, where filling it may have left it; the VM could not start."""
    if line.kind != OwnedKind.DISK.value or line.external_id is None:
        return []
    told = f"the control domain still holds {line.details['for']}, so the VM may not start (xe vbd-unplug frees it)"
    return _try(making, told, functools.partial(making.pool.detach_disk, DiskUuid(line.external_id)))


def _set_bios_strings(making: Making, vm: VmUuid) -> list[str]:
    wanted = _saved_map(making, "bios_strings")
    # They can be set once only, and a new VM has none: those it has are from an earlier try of this step.
    if not wanted or making.pool.vm(vm).record.get("bios_strings"):
        return []
    return _try(making, "BIOS strings could not be set", lambda: making.pool.set_bios_strings(vm, wanted))


def _untag(making: Making, line: LedgerLine) -> None:
    if line.external_id is not None:
        kind = TaggedKind.VM if line.kind == OwnedKind.VM.value else TaggedKind.DISK
        making.pool.untag(kind, line.external_id, RUN_TAG)


def _saved_map(making: Making, field: str) -> dict[str, str]:
    original = making.point.facts.vm_record.get("VM")
    found = original.get(field) if isinstance(original, dict) else None
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _try(making: Making, told: str, action: Callable[[], None]) -> list[str]:
    """Return nothing when it worked, or what to tell."""
    try:
        action()
    except HoldfastError as error:
        making.context.cancel.check()
        return [f"{told}: {error}"]
    return []
