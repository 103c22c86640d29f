"""A whole disk as a qcow2: planned from its extents, streamed from its runs, so that nothing is read twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from holdfast.formats.qcow2.write import QCOW2_CLUSTER_BYTES, Qcow2Plan, plan_qcow2, stream_qcow2
from holdfast.model import DataRun, DiskSource

__all__ = ["plan_qcow2_of", "stream_qcow2_of"]


def plan_qcow2_of(source: DiskSource) -> Qcow2Plan:
    """Return the plan of a disk's qcow2, with the clusters that may hold data. ``Qcow2TooLarge``.

    Takes 16 MiB of memory for each TiB of the disk, 128 MiB for each TiB of data.
    """
    held = np.zeros(-(-source.size_bytes // QCOW2_CLUSTER_BYTES), dtype=np.bool_)
    for extent in source.data_extents():
        held[extent.offset_bytes // QCOW2_CLUSTER_BYTES : -(-extent.end_bytes // QCOW2_CLUSTER_BYTES)] = True
    return plan_qcow2(source.size_bytes, np.flatnonzero(held))


def stream_qcow2_of(plan: Qcow2Plan, source: DiskSource) -> Iterator[bytes | memoryview]:
    """Yield the qcow2 of a disk as planned, drawn from ``source.runs()``; a piece is overwritten by the next one."""
    return stream_qcow2(plan, _InOrder(source.runs()).read_into)


class _InOrder:
    """Runs that are read as a disk from front to back, so that what prepares them ahead is of use."""

    def __init__(self, runs: Iterator[DataRun]) -> None:
        self._runs = runs
        self._run: DataRun | None = None

    def read_into(self, offset_bytes: int, view: memoryview) -> None:
        """Fill the view with what is there, zeros where no run is; offsets only ascend."""
        done, end = offset_bytes, offset_bytes + len(view)
        while done < end:
            run = self._run_behind(done)
            start = end if run is None else min(end, max(done, run.offset_bytes))
            view[done - offset_bytes : start - offset_bytes] = bytes(start - done)
            done = start
            if run is not None and run.offset_bytes <= done < end:
                inside = run.data[done - run.offset_bytes : end - run.offset_bytes]
                view[done - offset_bytes : done - offset_bytes + len(inside)] = inside
                done += len(inside)

    def _run_behind(self, offset_bytes: int) -> DataRun | None:
        """Return the first run that does not end before the offset."""
        while self._run is None or self._run.offset_bytes + self._run.length_bytes <= offset_bytes:
            self._run = next(self._runs, None)
            if self._run is None:
                return None
        return self._run
