"""How long the engine takes, and how much memory, where there are 100,000 restore points and ten million blocks.

Each step runs in a process of its own on the repository that ``bench.scale_world`` makes; its time is counted from the
moment when the interpreter has loaded the engine. Requests are those that an object store would be asked.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import CommandFailed
from bench.scale_world import ScaleRecipe, make_repository
from holdfast.core import BLOCK_BYTES, MIB, Cancellation, NoProgress, SystemClock, SystemEntropy
from holdfast.model import Coverage, DataRun, RunId, VmUuid
from holdfast.repository import OpenUnlock, Repository, open_repository
from holdfast.repository.layout import POINTS_PREFIX
from holdfast.storage import MeteredStore, PosixStore
from holdfast.storage.wrapper import Verb

__all__ = ["measure_scale"]

_DIGITS = 60


@dataclass(frozen=True, slots=True)
class _Place:
    """A repository that is opened in this process."""

    folder: Path
    store: MeteredStore

    def open(self) -> Repository:
        """Return the repository, opened now."""
        return open_repository(self.store, unlock=OpenUnlock(), clock=SystemClock(), entropy=SystemEntropy())


Step = Callable[[_Place], str]
"""Does its work and returns a remark on what came out."""


def _open(place: _Place) -> str:
    return place.open().id[:8]


def _list(place: _Place) -> str:
    return f"{len(place.open().summaries().points)} points"


def _list_vm(place: _Place) -> str:
    return f"{len(place.open().points(vm=VmUuid('00000000-0000-4000-8000-000000000007')))} points"


def _usage(place: _Place) -> str:
    usage = place.open().usage()
    return f"{usage.objects} objects, {usage.length_bytes / 1e12:.2f} TB"


def _plan_gc(place: _Place) -> str:
    return place.open().plan_gc().explain().splitlines()[0][:_DIGITS]


def _space(place: _Place) -> str:
    space = place.open().space(is_exact=False, progress=NoProgress(), cancel=Cancellation())
    return f"{len(space.vms)} VMs"


def _scrub_status(place: _Place) -> str:
    return "sound" if place.open().care.scrub_status(cancel=Cancellation()).is_sound else "damaged"


def _delete_and_collect(place: _Place) -> str:
    """Collect after the oldest point of every VM went: one point in a hundred."""
    repository = place.open()
    before = ""
    for info in list(place.store.list(POINTS_PREFIX)):
        folder = info.key.rpartition("/")[0]
        if folder != before:
            place.store.delete(info.key)
        before = folder
    report = repository.apply_gc(repository.plan_gc(), cancel=Cancellation())
    return f"{report.freed_bytes / 1e9:.1f} GB freed"


def _increment(place: _Place) -> str:
    """Read the samples of all indexes, and store an increment of a VM: what every backup begins with."""
    repository = place.open()
    newest = repository.points(vm=VmUuid("00000000-0000-4000-8000-000000000007"))[-1]
    stored = newest.disks[0].stored
    with repository.begin_run(RunId("r-scale"), cancel=Cancellation()) as writer:
        disk = writer.open_disk(stored.size_bytes, coverage=Coverage.CHANGES, reference=stored)
        for block in range(0, 64, 2):
            disk.write(DataRun(block * BLOCK_BYTES, SystemEntropy().token_bytes(BLOCK_BYTES)))
        made = disk.finish()
    repository.end_run(RunId("r-scale"))
    return f"{made.sizes.stored_bytes / MIB:.1f} MiB stored"


STEPS: dict[str, Step] = {
    "open": _open,
    "list all points": _list,
    "points of one VM": _list_vm,
    "usage by kind": _usage,
    "increment of one VM": _increment,
    "plan garbage collection": _plan_gc,
    "space of every VM": _space,
    "scrub status": _scrub_status,
    "delete 1 % of the points and collect": _delete_and_collect,
}


def measure_scale(folder: Path, recipe: ScaleRecipe, *, say: Callable[[str], None]) -> str:
    """Return a Markdown table of what each step took; makes the repository in ``folder`` unless it is there."""
    place = folder / f"repository-{recipe.vms}x{recipe.points_per_vm}"
    if not place.exists():
        say("making the repository")
        unfinished = place.with_suffix(".unfinished")
        folder.mkdir(parents=True, exist_ok=True)
        make_repository(unfinished, recipe, say=say)
        unfinished.rename(place)
    lines = [
        f"{recipe.vms} VMs, {recipe.vms * recipe.points_per_vm} points, {recipe.blocks / 1e6:.1f} million blocks, "
        f"{recipe.vms * recipe.disk_bytes / 1e12:.0f} TB provisioned",
        "",
        "| step | wall s | CPU s | peak RSS MiB | requests | what came out |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in STEPS:
        say(name)
        lines.append(_row(name, place))
    return "\n".join(lines)


def _row(name: str, place: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "bench.scale", name, str(place)], capture_output=True, text=True)
    if done.returncode != 0:
        raise CommandFailed(f"{name} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    requests = ", ".join(f"{count} {verb}" for verb, count in said["requests"].items() if count)
    return (
        f"| {name} | {said['wall_s']:.2f} | {said['cpu_s']:.2f} | {said['rss_peak_bytes'] / MIB:.0f} | {requests} "
        f"| {said['remark']} |"
    )


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[_Place]:
    yield _Place(folder, MeteredStore(PosixStore(folder)))


def main(name: str, folder: Path) -> None:
    """Do one step and print what it took as JSON."""
    with _opened(folder) as place:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        remark = STEPS[name](place)
        told = {
            "wall_s": time.perf_counter() - wall_s,
            "cpu_s": time.process_time() - cpu_s,
            "rss_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "requests": {verb.value: place.store.meters()[verb].requests for verb in Verb},
            "remark": remark,
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
