"""The backup flow on a pool, a repository, a ledger and a record that all live in memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import msgspec

from holdfast.backup import BackupArgs, BackupFlow, BackupResult
from holdfast.core import Cancellation, SeededEntropy
from holdfast.model import Finding, JsonObject, RunId
from holdfast.runs import StepContext
from holdfast.upkeep import remove_line
from holdfast.xapi import PoolClient
from tests.support.flows import NOW, MemoryLedger, MemoryPool
from tests.support.repositories import World
from tests.unit.runs.fakes import MemoryLog, MemoryRecorder

__all__ = ["Runner"]


class Runner:
    """Runs the flow; each run has a record of its own, so that one can be run again after a crash."""

    def __init__(self) -> None:
        self.world = World()
        self.world.clock.advance((NOW - self.world.clock.now()).total_seconds())
        self.pool = MemoryPool(clock=self.world.clock)
        self.ledger = MemoryLedger(self.world.clock)
        self.recorders: dict[str, MemoryRecorder] = {}
        self.log = MemoryLog()
        self.notes: list[str] = []
        self.partial: str | None = None
        self.entropy = SeededEntropy(1)

    def run(self, run: str, *vms: str, repository: World | None = None, **args: Any) -> BackupResult:
        """Run, or run again what ``run`` has recorded so far."""
        self.world.clock.advance(3600)
        world = repository or self.world
        self.recorders[run] = self.recorders.get(run, MemoryRecorder()).replay()
        self.log = MemoryLog()
        flow = BackupFlow(
            open_pool=lambda name, context: cast(PoolClient, nullcontext(self.pool)),
            open_repository=lambda name, cancel: world.repository,
            ledger=self.ledger,
            remove_line=remove_line,
            clock=self.world.clock,
            entropy=self.entropy,
        )
        context = StepContext(
            run_id=RunId(run),
            cancel=Cancellation(),
            progress=self,
            recorder=self.recorders[run],
            log=self.log,
        )
        wanted = BackupArgs(pool="lab", repository="main", vms=vms, **args)
        built: JsonObject = msgspec.to_builtins(wanted)
        result = msgspec.convert(flow(context, built), BackupResult)
        self.partial = context.partial_reason
        return result

    @property
    def findings(self) -> list[Finding]:
        return self.log.findings

    def told(self) -> str:
        return "\n".join(each.message for each in self.findings)

    # --- Progress

    def start(self, what: str, *, total_bytes: int | None = None) -> Any:
        return nullcontext(self)

    def advance(self, done_bytes: int) -> None:
        pass

    def retotal(self, total_bytes: int) -> None:
        pass

    def note(self, message: str) -> None:
        self.notes.append(message)
