"""Opening a planned read: NBD while it works, another plan when it does not.

Invariant: a reader's ``plan`` is what it does, not what was hoped for; the run records that one.
"""

from __future__ import annotations

from typing import Protocol

from holdfast.core import Cancellation, get_log
from holdfast.model import DiskReader
from holdfast.xapi.calls import Calls
from holdfast.xapi.changes import plan_read
from holdfast.xapi.errors import ExportDamaged, NbdUnavailable
from holdfast.xapi.exports import VhdDiskReader
from holdfast.xapi.nbd import NbdConnection
from holdfast.xapi.nbd_door import NbdDoor
from holdfast.xapi.nbd_reader import NbdDiskReader
from holdfast.xapi.values import ReadPlan, ReadTransport

__all__ = ["PoolReader", "open_reader"]

_log = get_log(__name__)


class PoolReader(DiskReader, Protocol):
    """A ``DiskReader`` of a pool, which also says how it reads."""

    @property
    def plan(self) -> ReadPlan:
        """The plan that is carried out."""
        ...


def open_reader(calls: Calls, door: NbdDoor, plan: ReadPlan) -> PoolReader:
    """Return a reader for ``plan``, or for the next best plan when NBD has stopped working since."""
    if plan.transport is ReadTransport.NBD:
        try:
            return _open_nbd(calls, door, plan)
        except NbdUnavailable as failure:
            _log.warning("nbd.replanned", disk=plan.snapshot, why=failure.why)
            plan = plan_read(
                calls,
                door,
                live=plan.live,
                snapshot=plan.snapshot,
                reference=plan.wanted,
                force_full=plan.force_full,
                without_nbd=failure.why,
            )
    return VhdDiskReader(calls, plan, cancel=calls.cancel)


def _open_nbd(calls: Calls, door: NbdDoor, plan: ReadPlan) -> PoolReader:
    def another(cancel: Cancellation) -> NbdConnection:
        return door.open(calls, plan.snapshot, cancel=cancel)

    first = another(calls.cancel)
    if first.size_bytes != plan.size_bytes:
        first.close()
        raise ExportDamaged(
            disk=plan.snapshot, why=f"over NBD it is of {first.size_bytes} bytes, its record says {plan.size_bytes}"
        )
    return NbdDiskReader(plan, first, open_connection=another, clock=calls.clock, cancel=calls.cancel)
