"""The backup run: VM after VM, each part a durable step.

Invariant: a step is safe to run twice, and everything that decides what a later step does is the recorded result of an
earlier one, so a run that was killed at any instant continues where it was. One VM's failure is that VM's alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from holdfast.backup.outcome import BackupArgs, BackupResult, NoPointMade
from holdfast.backup.snapshot import LineRemover
from holdfast.backup.vm import Work, back_up_or_tell, to_json
from holdfast.core import Cancellation, Clock, Entropy, HoldfastError, from_builtins
from holdfast.model import Finding, JsonObject, RunId, Severity, VmUuid
from holdfast.repository import Repository, RunWriter
from holdfast.runs import Ledger, StepContext
from holdfast.xapi import PoolClient

__all__ = ["BACKUP_KIND", "BackupFlow"]

BACKUP_KIND = "backup"
"""The kind under which runs of this flow are recorded."""


class BackupFlow:
    """The flow itself; register it with ``Runs`` under ``BACKUP_KIND``."""

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
        """Run, and return a ``BackupResult`` as JSON. Raises only what makes the whole run fail."""
        wanted = from_builtins(args, BackupArgs)
        repository = self._open_repository(wanted.repository, context.cancel)
        heir_of = [RunId(each) for each in wanted.heir_of]
        with (
            self._open_pool(wanted.pool, context) as pool,
            _ended_kindly(
                context, repository.begin_run(context.run_id, cancel=context.cancel, heir_of=heir_of)
            ) as writer,
        ):
            work = Work(
                context=context,
                args=wanted,
                pool=pool,
                pool_facts=pool.inventory().pool,
                repository=repository,
                writer=writer,
                ledger=self._ledger,
                remove_line=self._remove_line,
                clock=self._clock,
                entropy=self._entropy,
            )
            result = BackupResult(vms=tuple(back_up_or_tell(work, VmUuid(vm)) for vm in wanted.vms))
        _judge(context, result)
        built = to_json(result)
        assert isinstance(built, dict)
        return built


@contextlib.contextmanager
def _ended_kindly(context: StepContext, writer: RunWriter) -> Iterator[RunWriter]:
    """End the writing of a run whose points are published or given up; what fails then costs time, never data."""
    try:
        yield writer
    except BaseException:
        writer.leave()
        raise
    try:
        writer.close()
    except HoldfastError as error:
        context.cancel.check()
        message = f"the run's index was not written, so later runs find fewer known blocks: {error}"
        context.finding(
            Finding(severity=Severity.NOTE, subject="repository", message=message, next_step=error.next_step())
        )


def _judge(context: StepContext, result: BackupResult) -> None:
    """Fail the run when no VM has a point; mark it partial when only some have one."""
    failed = [each for each in result.vms if each.point is None]
    if failed and len(failed) == len(result.vms):
        raise NoPointMade(failed)
    if failed:
        context.mark_partial(f"{len(failed)} of {len(result.vms)} VMs have no new point")
