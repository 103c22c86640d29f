"""One step of our engine on a disk image, as a process of its own: what ``bench.contenders`` runs and measures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast.core import Cancellation, NoProgress, Secret, SystemClock, SystemEntropy, limits
from holdfast.model import (
    ChangeSource,
    Consistency,
    Coverage,
    DataRun,
    DiskFacts,
    DiskUuid,
    PointFacts,
    PoolUuid,
    Run,
    RunId,
    VmIdentity,
    VmUuid,
    new_run_id,
)
from holdfast.repository import (
    Compression,
    IdentityHolder,
    IdentityUnlock,
    Repository,
    RestorePoint,
    StoredDisk,
    create_repository,
    new_recovery_key,
    open_repository,
)
from holdfast.storage import PosixStore

_MACHINES = {
    "bench": VmUuid("5d1f9f0e-0000-4000-8000-000000000001"),
    "clone": VmUuid("5d1f9f0e-0000-4000-8000-000000000004"),
    "reinstall": VmUuid("5d1f9f0e-0000-4000-8000-000000000005"),
}
_DISK = DiskUuid("5d1f9f0e-0000-4000-8000-000000000002")
_POOL = PoolUuid("5d1f9f0e-0000-4000-8000-000000000003")


class ImageReader:
    """An image file as a disk that is read: all of it, or the granules that changed."""

    def __init__(self, path: Path, *, changes: list[list[int]] | None) -> None:
        self._file = path.open("rb", buffering=0)
        self._changes = changes
        self._buffer = bytearray(limits.RUN_BYTES_MAX)

    @property
    def size_bytes(self) -> int:
        """See ``DiskReader.size_bytes``."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def coverage(self) -> Coverage:
        """See ``DiskReader.coverage``."""
        return Coverage.WHOLE if self._changes is None else Coverage.CHANGES

    @property
    def planned_bytes(self) -> int:
        """See ``DiskReader.planned_bytes``."""
        return self.size_bytes if self._changes is None else sum(length for _, length in self._changes)

    def runs(self) -> Iterator[Run]:
        """See ``DiskReader.runs``."""
        for start, length_bytes in self._changes if self._changes is not None else [[0, self.size_bytes]]:
            end = min(start + length_bytes, self.size_bytes)
            for offset in range(start, end, len(self._buffer)):
                view = memoryview(self._buffer)[: min(len(self._buffer), end - offset)]
                os.preadv(self._file.fileno(), [view], offset)
                yield DataRun(offset, view)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def create(options: argparse.Namespace) -> None:
    """Make a repository that this machine's key opens, as unattended runs do."""
    key = new_recovery_key()
    options.key.write_text(key.secret.reveal())
    create_repository(
        PosixStore(options.repository, create=True),
        holders=[IdentityHolder("bench", key.public)],
        clock=SystemClock(),
        entropy=SystemEntropy(),
        compression=Compression[options.compression.upper()],
    )


def back_up(options: argparse.Namespace) -> None:
    """Store the disk as a point; against the newest one when there is a list of changes. Tells how much was new."""
    repository = _open(options)
    changes = None if options.changes is None else json.loads(options.changes.read_text())
    points = repository.points(vm=_MACHINES[options.machine])
    reference = points[-1].disks[0].stored if changes is not None else None
    run_id = new_run_id(clock=SystemClock(), entropy=SystemEntropy())
    with (
        ImageReader(options.disk, changes=changes) as reader,
        repository.begin_run(run_id, cancel=Cancellation()) as run,
    ):
        writer = run.open_disk(reader.size_bytes, coverage=reader.coverage, reference=reference)
        for piece in reader.runs():
            writer.write(piece)
        stored = writer.finish()
        run.publish(_point_facts(run_id, points, machine=options.machine), [(_disk_facts(reader.size_bytes), stored)])
    data_bytes = sum(extent.length_bytes for extent in repository.source(stored, cancel=Cancellation()).data_extents())
    print(json.dumps({"data_bytes": data_bytes, "new_bytes": stored.sizes.new_bytes}))


def restore(options: argparse.Namespace) -> None:
    """Write the newest point's disk to a file, every block checked; zeros stay holes, and it is durable."""
    # Here, so that the other steps do not pay for a pool's client, which comes with it.
    from holdfast.restore import write_raw

    repository = _open(options)
    newest = repository.points(vm=_MACHINES["bench"])[-1]
    source = repository.source(newest.disks[0].stored, cancel=Cancellation())
    with NoProgress().start("restore") as task:
        write_raw(options.target, source, task=task)


def verify(options: argparse.Namespace) -> None:
    """Check every byte of the repository; exit with an error when one is wrong."""
    report = _open(options).verify(None, progress=NoProgress(), cancel=Cancellation())
    print(report)
    if not report.is_sound:
        sys.exit("the repository is damaged")


def delete(options: argparse.Namespace) -> None:
    """Delete all but the newest point of the machine, and give their space back."""
    repository = _open(options)
    for point in repository.points(vm=_MACHINES["bench"])[:-1]:
        repository.delete_point(point.id)
    print(repository.apply_gc(repository.plan_gc(), cancel=Cancellation()))


def _open(options: argparse.Namespace) -> Repository:
    return open_repository(
        PosixStore(options.repository),
        unlock=IdentityUnlock(Secret(options.key.read_text())),
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )


def point_of_run(
    run: RunId, points: Sequence[RestorePoint], *, size_bytes: int, stored: StoredDisk
) -> tuple[PointFacts, list[tuple[DiskFacts, StoredDisk]]]:
    """Return what publishes a point with one disk after these points."""
    return _point_facts(run, points, machine="bench"), [(_disk_facts(size_bytes), stored)]


def _point_facts(run: RunId, points: Sequence[RestorePoint], *, machine: str) -> PointFacts:
    # Points are told apart by the second; small disks are backed up faster than that.
    after = [point.facts.taken_at + timedelta(seconds=1) for point in points]
    return PointFacts(
        vm=VmIdentity(uuid=_MACHINES[machine], name=machine, pool=_POOL, pool_name="bench"),
        taken_at=max([datetime.now(UTC), *after]),
        run=run,
        job="bench",
        consistency=Consistency.CRASH,
        previous=None,
        tags=(),
        vm_record={},
        vm_metadata=b"",
    )


def _disk_facts(size_bytes: int) -> DiskFacts:
    return DiskFacts(
        uuid=_DISK,
        name="bench",
        position="0",
        bootable=True,
        size_bytes=size_bytes,
        change_source=ChangeSource.FULL,
        change_reason="an image file is read",
        reference=None,
        vdi_record={},
        vbd_record={},
    )


_STEPS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "create": create,
    "back-up": back_up,
    "delete": delete,
    "restore": restore,
    "verify": verify,
}


def main(arguments: list[str]) -> int:
    """Carry out one step; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.ours", description=__doc__)
    parser.add_argument("step", choices=sorted(_STEPS))
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--disk", type=Path)
    parser.add_argument("--changes", type=Path)
    parser.add_argument("--target", type=Path)
    parser.add_argument("--machine", choices=sorted(_MACHINES), default="bench")
    parser.add_argument("--compression", default="standard")
    options = parser.parse_args(arguments)
    _STEPS[options.step](options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
