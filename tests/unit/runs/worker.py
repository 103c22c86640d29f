"""A process that carries runs out and may be killed at any instant; what it did to the world stands in a file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import sqlalchemy as sa

from holdfast.core import Cancellation, NoProgress, SystemClock, SystemEntropy
from holdfast.model import JsonObject, JsonValue, PoolUuid, RunId, RunStatus
from holdfast.runs import LedgerId, RunFinished, RunIsRunning, Runs, StepContext, open_runs
from holdfast.runs.executors import take_executor

POOL = PoolUuid("pool-1")
RESULT: JsonObject = {"copied": ["a", "b"], "point": "p-1"}
STEPS = ("snapshot", "copy a", "copy b", "publish", "release")
LOST_STATUS = 9
"""The exit status of a process that found the run in other hands."""


class World:
    """What the steps did, in a file that survives their process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def tell(self, what: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{what}\n")

    def told(self) -> Counter[str]:
        return Counter(self._path.read_text().splitlines()) if self._path.exists() else Counter()


Instant = Callable[[StepContext, str], None]
"""Called with the step's name after each step's work and before its result is recorded."""


def backup_flow(world: World, runs: Runs, instant: Instant) -> Callable[[StepContext, JsonObject], JsonObject]:
    """Return a flow shaped like a backup: ledger and snapshot, copies side by side, publish, hand over."""

    def work(context: StepContext, name: str, value: JsonValue) -> JsonValue:
        world.tell(f"{context.run_id} begin {name}")
        if name == "snapshot":
            line = runs.ledger.intend(run=context.run_id, pool=POOL, kind="snapshot", name="s", details={})
            world.tell(f"{context.run_id} made snapshot")
            runs.ledger.made(line, external_id="uuid-1")
            value = int(line)
        if name == "release":
            assert isinstance(value, int)
            runs.ledger.keep(LedgerId(value), why="reference of the next run")
        instant(context, name)
        return value

    def flow(context: StepContext, args: JsonObject) -> JsonObject:
        line = context.step("snapshot", partial(work, context, "snapshot", None))
        copies = [(f"copy {disk}", partial(work, context, f"copy {disk}", disk)) for disk in ("a", "b")]
        copied = [result.unwrap() for result in context.steps_parallel(copies, at_once=2)]
        point = context.step("publish", partial(work, context, "publish", "p-1"))
        context.step("release", partial(work, context, "release", line))
        return {"copied": copied, "point": point}

    return flow


def open_folder(folder: Path, *, instant: Instant = lambda context, name: None) -> Runs:
    """Open the runs of ``folder`` with the backup flow registered; its world is a file in it."""
    runs = open_runs(folder, clock=SystemClock(), entropy=SystemEntropy(), poll_s=0.05)
    runs.register("backup", backup_flow(World(folder / "world"), runs, instant))
    return runs


def start_process(target: Callable[..., None], *args: object) -> ForkServerProcess:
    """Start ``target`` in a process of its own; the engine is loaded once for all of them."""
    process = context().Process(target=target, args=args)
    process.start()
    return process


def context() -> ForkServerContext:
    """Return what makes processes and what they wait for."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["holdfast.runs.execution", "tests.unit.runs.worker"])
    return made


def carry_out_killed_in(folder: Path, run_id: str, step: str) -> None:
    """Carry a run out and die in ``step``, after its work and before its result is recorded."""

    def instant(context: StepContext, name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_folder(folder, instant=instant) as runs:
        execute(runs, RunId(run_id))


def carry_out_killed_at_commit(folder: Path, run_id: str, number: int) -> None:
    """Carry a run out and die just before its ``number``-th database transaction, of ours or of the engine."""
    with open_folder(folder) as runs:
        runs.register("warm-up", lambda context, args: {})
        runs.execute(
            "warm-up",
            RunId(f"{run_id}-warm-up"),
            {},
            cancel=Cancellation(),
            progress=NoProgress(),
            title="the engine is running before the count begins",
        )
        seen = 0
        lock = threading.Lock()

        def count(_connection: sa.Connection) -> None:
            nonlocal seen
            if not threading.current_thread().name.startswith(("MainThread", "dbos-executor", "step")):
                return
            with lock:
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sa.event.listen(sa.Engine, "commit", count)
        execute(runs, RunId(run_id))


def carry_out_waiting(folder: Path, run_id: str, reached: Event) -> None:
    """Carry a run out that waits in ``publish`` until it is stopped."""

    def instant(context: StepContext, name: str) -> None:
        if name == "publish":
            reached.set()
            context.cancel.wait(60)

    with open_folder(folder, instant=instant) as runs:
        execute(runs, RunId(run_id))


def resume_when_told(folder: Path, run_id: str, ready: Event, go: Event) -> None:
    """Resume a run at the same moment as others do; exit with ``LOST_STATUS`` when another one has it."""
    with open_folder(folder) as runs:
        ready.set()
        assert go.wait(60)
        try:
            record = runs.resume(RunId(run_id), cancel=Cancellation(), progress=NoProgress())
        except (RunIsRunning, RunFinished):
            os._exit(LOST_STATUS)
        assert record.status is RunStatus.SUCCEEDED


def execute(runs: Runs, run_id: RunId) -> None:
    """Carry a backup out, and check nothing."""
    runs.execute("backup", run_id, {}, cancel=Cancellation(), progress=NoProgress(), title="web")


def carry_out_many(folder: Path, prefix: str, count: int) -> None:
    """Carry several runs out, one after the other."""
    with open_folder(folder) as runs:
        for number in range(count):
            execute(runs, RunId(f"{prefix}-{number}"))


def hold_executor(folder: Path, told: SimpleQueue[str]) -> None:
    """Take an executor, tell its id, and live until killed."""
    with take_executor(folder, entropy=SystemEntropy()) as executor:
        told.put(executor.id)
        signal.pause()
