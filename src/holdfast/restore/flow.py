"""The restore run: plan, disks, VM, hand over, start; each a durable step.

The VM appears on the pool only when all of its disks are written. Invariant: until it is handed over, everything made
here stands in the ledger, so a restore that was killed or gave up leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.core import Cancellation, Clock, Entropy, from_builtins, limits
from holdfast.model import Finding, JsonObject, JsonValue, Severity, VmUuid
from holdfast.repository import Repository, RestorePoint
from holdfast.restore.handover import hand_over, start_vm
from holdfast.restore.make import LineRemover, Making, make_disk, make_vm
from holdfast.restore.order import Order, RestoreArgs, RestoredDisk, RestoreResult, order_of, wishes_of
from holdfast.restore.plan import measure_data, plan_restore
from holdfast.runs import Ledger, StepContext
from holdfast.xapi import PoolClient

__all__ = ["RESTORE_KIND", "RestoreFlow", "fresh_generation_id"]

RESTORE_KIND = "restore"
"""The kind under which runs of this flow are recorded."""


class RestoreFlow:
    """The flow itself; register it with ``Runs`` under ``RESTORE_KIND``."""

    def __init__(
        self,
        *,
        open_pool: Callable[[str, StepContext], PoolClient],
        open_repository: Callable[[str, Cancellation], Repository],
        ledger: Ledger,
        remove_line: LineRemover,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._open_pool = open_pool
        self._open_repository = open_repository
        self._ledger = ledger
        self._remove_line = remove_line
        self._clock = clock
        self._entropy = entropy

    def __call__(self, context: StepContext, args: JsonObject) -> JsonObject:
        """Run, and return a ``RestoreResult`` as JSON."""
        wanted = from_builtins(args, RestoreArgs)
        repository = self._open_repository(wanted.repository, context.cancel)
        with self._open_pool(wanted.pool, context) as pool:
            point = repository.point(wanted.point)
            recorded = context.step("plan", lambda: self._decide(context, wanted, pool, repository, point))
            making = Making(
                context=context,
                pool=pool,
                repository=repository,
                point=point,
                order=from_builtins(recorded, Order),
                ledger=self._ledger,
                remove_line=self._remove_line,
                clock=self._clock,
                entropy=self._entropy,
            )
            result = _carry_out(making)
        built: JsonObject = msgspec.to_builtins(result)
        return built

    def _decide(
        self,
        context: StepContext,
        args: RestoreArgs,
        pool: PoolClient,
        repository: Repository,
        point: RestorePoint,
    ) -> JsonValue:
        plan = plan_restore(
            point,
            pool.inventory(),
            wishes_of(args),
            data_bytes=measure_data(repository, point, cancel=context.cancel),
            fresh_generation=fresh_generation_id(self._entropy),
        )
        return order_of(plan)


def fresh_generation_id(entropy: Entropy) -> str:
    """Return a new VM generation id in XAPI's form: two signed 64-bit numbers with a colon."""
    high, low = (int.from_bytes(entropy.token_bytes(8), "big", signed=True) for _ in range(2))
    return f"{high}:{low}"


def _carry_out(making: Making) -> RestoreResult:
    context, order = making.context, making.order
    disks = _make_disks(making)
    vm = VmUuid(from_builtins(context.step("vm", lambda: str(make_vm(making, disks))), str))
    problems = context.step("hand over", lambda: list[JsonValue](hand_over(making, vm)))
    for problem in from_builtins(problems, list[str]):
        _tell(making, problem)
    refusal = ""
    if order.start:
        refusal = from_builtins(context.step("start", lambda: start_vm(making, vm)), str)
    if refusal:
        _tell(making, refusal)
        context.mark_partial(refusal)
    return RestoreResult(
        vm=vm,
        vm_name=order.name,
        point=making.point.id,
        disks=tuple(disks.values()),
        notes=order.notes,
        started=order.start and not refusal,
    )


def _make_disks(making: Making) -> dict[str, RestoredDisk]:
    steps = [
        (f"disk {disk.facts.position}", lambda disk=disk: msgspec.to_builtins(make_disk(making, disk)))
        for disk in making.point.disks
    ]
    recorded = making.context.steps_parallel(steps, at_once=limits.RUN_DISKS_AT_ONCE_MAX)
    restored = [from_builtins(each.unwrap(), RestoredDisk) for each in recorded]
    return {each.position: each for each in restored}


def _tell(making: Making, message: str) -> None:
    making.context.finding(Finding(severity=Severity.WARNING, subject=making.order.name, message=message))
