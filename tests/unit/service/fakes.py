"""A workspace whose store and runs live in memory: what use cases decide is tested without a process or a socket."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from holdfast.core import ManualClock, SeededEntropy
from holdfast.daemon import FileRegistry, FileVault
from holdfast.model import JsonObject, RunId, RunStatus
from holdfast.runs import RunIsRunning, RunNotFound, RunRecord, Runs, RunSummary, StepRecord, StepState
from holdfast.service import Workspace
from holdfast.storage import CountedRequests, MemoryStore
from tests.support.flows import NOW, MemoryLedger

__all__ = ["FakeRuns", "make_workspace", "run_record"]


def run_record(
    run: str, status: RunStatus, *, kind: str = "backup", args: JsonObject | None = None, done: tuple[str, ...] = ()
) -> RunRecord:
    """Return a run; later names started later."""
    steps = tuple(
        StepRecord(name=name, state=StepState.DONE, attempts=1, started=NOW, duration_s=1.0, error=None)
        for name in done
    )
    return RunRecord(
        run_id=RunId(run),
        kind=kind,
        title=f"title of {run}",
        status=status,
        reason="",
        attempts=1,
        started=NOW + timedelta(seconds=sum(map(ord, run))),
        updated=NOW,
        ended=NOW if status.is_final else None,
        error=None,
        progress=(),
        args=args or {},
        result=None,
        steps=steps,
        findings=(),
        notes=(),
        ledger=(),
    )


@dataclass
class FakeRuns:
    """See ``Runs``. ``busy`` are runs that somebody resumes at the moment when they are to be closed."""

    records: list[RunRecord] = field(default_factory=list)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    busy: set[str] = field(default_factory=set)
    executed: list[tuple[str, Any, str]] = field(default_factory=list)
    ends_as: RunStatus = RunStatus.SUCCEEDED

    def __enter__(self) -> FakeRuns:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def runs(self) -> Runs:
        """The fake as use cases take it."""
        return cast(Runs, self)

    def register(self, kind: str, flow: object) -> None:
        pass

    def list(self, *, limit: int, status: RunStatus | None = None) -> list[RunSummary]:
        newest = sorted(self.records, key=lambda each: each.started, reverse=True)
        wanted: list[RunSummary] = [each for each in newest if status in (None, each.status)]
        return wanted[:limit]

    def show(self, run: RunId) -> RunRecord:
        for each in self.records:
            if each.run_id == run:
                return replace(each, ledger=tuple(self.ledger.lines(run=run)))
        raise RunNotFound(run_id=run)

    def close_run(self, run: RunId, *, reason: str) -> RunRecord:
        if run in self.busy:
            raise RunIsRunning(run_id=run)
        return self._end(run, status=RunStatus.CANCELLED, reason=reason)

    def request_cancel(self, run: RunId, *, reason: str) -> RunRecord:
        return self._end(run, reason=reason)

    def execute(self, kind: str, run: RunId, args: JsonObject, *, title: str, **_: Any) -> RunRecord:
        self.executed.append((kind, json.loads(json.dumps(args)), title))
        self.records.append(run_record(run, self.ends_as, kind=kind, args=args))
        return self.show(run)

    def resume(self, run: RunId, **_: Any) -> RunRecord:
        return self._end(run, status=self.ends_as)

    def _end(self, run: RunId, **changes: Any) -> RunRecord:
        self.records = [replace(each, **changes) if each.run_id == run else each for each in self.records]
        return self.show(run)


def make_workspace(
    folder: Path, *, runs: FakeRuns | None = None, stores: dict[str, MemoryStore] | None = None, name: str = "machine-a"
) -> Workspace:
    """Return a workspace that keeps its configuration in ``folder``; machines that share ``stores`` see the same."""
    places = {} if stores is None else stores
    the_runs = runs or FakeRuns()

    @contextlib.contextmanager
    def open_runs() -> Iterator[Runs]:
        yield the_runs.runs

    return Workspace(
        clock=ManualClock(NOW),
        entropy=SeededEntropy(5),
        registry=FileRegistry(folder / "config"),
        vault=FileVault(folder / "secrets"),
        open_store=lambda place, create, cancel: places.setdefault(place.location, MemoryStore()),
        cached=lambda place, store: store,
        open_runs=open_runs,
        counted_requests=lambda place: CountedRequests(),
        machine_name=name,
    )
