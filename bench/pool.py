"""From a pool to a repository and back: the whole command against a lab pool in its own process, over NBD with TLS.

Measured are the commands that an admin types, each a process of its own: first backup, unchanged increment, increment
after guests worked, restore; of a 4 GiB VM with real files, and of a VM with a sparse disk of 64 GiB. The lab's own CPU
time is told beside, because both share the machine's cores.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Cost, run_measured
from holdfast.core import GIB, MIB, Cancellation, NoProgress, SystemClock, SystemEntropy
from holdfast.lab import LabHandle, LabOptions, spawn_lab
from holdfast.model import DataRun, Extent, JsonObject
from holdfast.xapi import Credentials, PinnedCertificate, PoolAddress, PoolClient, open_pool

__all__ = ["measure_pool"]

_WIDE_BYTES = 64 * GIB
_WIDE_DATA_BYTES = 1 * GIB


class WideDisk:
    """A disk of 64 GiB whose data lies in pieces of 4 MiB all over it; half of each piece compresses away."""

    size_bytes = _WIDE_BYTES

    def __init__(self) -> None:
        count = _WIDE_DATA_BYTES // (4 * MIB)
        self._offsets = [n * (_WIDE_BYTES // count) for n in range(count)]

    def data_extents(self) -> Iterator[Extent]:
        """See ``DiskSource.data_extents``."""
        for offset in self._offsets:
            yield Extent(offset_bytes=offset, length_bytes=4 * MIB)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``DiskSource.read``; the upload reads by runs, so this is never the way."""
        raise AssertionError((offset_bytes, length_bytes))

    def runs(self) -> Iterator[DataRun]:
        """See ``DiskSource.runs``."""
        for offset in self._offsets:
            yield DataRun(offset, os.urandom(2 * MIB) + b"holdfast" * (2 * MIB // 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One command: what it took, what it moved, and what the lab used meanwhile."""

    step: str
    cost: Cost
    moved_bytes: int
    lab_cpu_s: float


def measure_pool(*, rounds: int, folder: Path) -> str:
    """Return a Markdown table of medians over ``rounds``, each on a lab and a repository of its own."""
    samples: list[Sample] = []
    for _ in range(rounds):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        lab = spawn_lab(LabOptions(state_dir=folder / "lab", scenario="demo", witness=False))
        try:
            samples += _round(lab, folder)
        finally:
            lab.stop()
            shutil.rmtree(folder, ignore_errors=True)
    return _table(samples)


def _round(lab: LabHandle, folder: Path) -> list[Sample]:
    environment = {
        **os.environ,
        "HOLDFAST_HOME": str(folder / "home"),
        "HOLDFAST_POOL_PASSWORD": lab.password.reveal(),
    }
    runner = _Runner(lab, folder, environment)
    _add_wide_vm(lab)
    runner.run("pool", "add", "lab", lab.url, "--yes")
    runner.run("repository", "create", "main", str(folder / "repository"))
    web = next(str(vm["uuid"]) for vm in _vms(lab) if vm["name"] == "web")
    backup = ("backup", "run", "--pool", "lab", "--repository", "main", "--vm")
    samples = [
        runner.backup("first backup, 4 GiB VM", *backup, "web"),
        runner.backup("increment, nothing changed", *backup, "web"),
    ]
    lab.control.work_guest(web)
    samples.append(runner.backup("increment, guest worked", *backup, "web"))
    samples.append(runner.backup("first backup, 64 GiB sparse VM", *backup, "wide"))
    point = json.loads(runner.output("point", "list", "--repository", "main", "--vm", "web"))["points"][-1]["id"]
    samples.append(
        runner.restore(
            "restore, 4 GiB VM", "restore", "vm", point, "--repository", "main", "--pool", "lab", "--name", "again"
        )
    )
    return samples


class _Runner:
    def __init__(self, lab: LabHandle, folder: Path, environment: Mapping[str, str]) -> None:
        self._lab, self._folder, self._environment = lab, folder, environment

    def run(self, *words: str) -> Cost:
        command = [sys.executable, "-m", "holdfast", *words, "--json"]
        return run_measured(command, environment=self._environment, log=self._folder / "out")

    def output(self, *words: str) -> str:
        self.run(*words)
        return (self._folder / "out").read_text()

    def backup(self, step: str, *words: str) -> Sample:
        return self._sample(step, words, "read_bytes")

    def restore(self, step: str, *words: str) -> Sample:
        return self._sample(step, words, "data_bytes")

    def _sample(self, step: str, words: Sequence[str], counted: str) -> Sample:
        before_s = _cpu_of(self._lab.pid)
        cost = self.run(*words)
        result: JsonObject = json.loads((self._folder / "out").read_text())["run"]["result"]
        return Sample(
            step=step, cost=cost, moved_bytes=_sum_of(result, counted), lab_cpu_s=_cpu_of(self._lab.pid) - before_s
        )


def _sum_of(value: object, name: str) -> int:
    """Return the sum of all numbers of that name, wherever they are in a document."""
    if isinstance(value, dict):
        own = value.get(name)
        return (own if isinstance(own, int) else 0) + sum(_sum_of(each, name) for each in value.values())
    return sum(_sum_of(each, name) for each in value) if isinstance(value, list) else 0


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _vms(lab: LabHandle) -> list[JsonObject]:
    found = lab.control.status()["vms"]
    assert isinstance(found, list)
    return [vm for vm in found if isinstance(vm, dict)]


def _add_wide_vm(lab: LabHandle) -> None:
    cancel = Cancellation()
    with open_pool(
        PoolAddress.parse(lab.url),
        Credentials(user=lab.user, password=lab.password),
        PinnedCertificate(lab.fingerprint),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        cancel=cancel,
    ) as pool:
        _fill_wide_vm(pool, cancel)


def _fill_wide_vm(pool: PoolClient, cancel: Cancellation) -> None:
    inventory = pool.inventory()
    assert inventory.pool.default_sr is not None
    disk = pool.create_disk(inventory.pool.default_sr, size_bytes=_WIDE_BYTES, name="wide")
    pool.write_disk(disk, WideDisk(), progress=NoProgress(), cancel=cancel)
    web = pool.describe_vm(inventory.find_vm("web").uuid)["VM"]
    assert isinstance(web, dict)
    vm = pool.create_vm({**web, "name_label": "wide"})
    pool.create_vbd(vm, disk, position="0", bootable=True, read_only=False, record={})


def _table(samples: Sequence[Sample]) -> str:
    lines = [
        "| step | n | wall s | moved MB | MB/s | CPU s | lab's CPU s | peak RSS MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for step in dict.fromkeys(sample.step for sample in samples):
        mine = [sample for sample in samples if sample.step == step]
        wall_s = statistics.median(each.cost.wall_s for each in mine)
        moved_mb = statistics.median(each.moved_bytes for each in mine) / 1e6
        cpu_s = statistics.median(each.cost.cpu_s for each in mine)
        lab_cpu_s = statistics.median(each.lab_cpu_s for each in mine)
        rss_mib = max(each.cost.rss_peak_bytes for each in mine) / MIB
        lines.append(
            f"| {step} | {len(mine)} | {wall_s:.2f} | {moved_mb:.1f} | {moved_mb / wall_s:.0f} "
            f"| {cpu_s:.1f} | {lab_cpu_s:.1f} | {rss_mib:.0f} |"
        )
    return "\n".join(lines)
