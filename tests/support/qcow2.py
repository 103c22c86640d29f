"""Disks as qcow2 for tests, and a disk far larger than memory that holds little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from holdfast.formats.qcow2 import QCOW2_CLUSTER_BYTES, plan_qcow2, stream_qcow2
from holdfast.model import DataRun, Extent

__all__ = ["SparseDisk", "qcow2_of"]

_BLOCK = QCOW2_CLUSTER_BYTES


def qcow2_of(size_bytes: int, clusters: Mapping[int, bytes]) -> bytes:
    """Return a qcow2 as a pool streams it, with these clusters of 64 KiB."""

    def fill(offset_bytes: int, view: memoryview) -> None:
        for start in range(0, len(view), _BLOCK):
            piece = view[start : start + _BLOCK]
            piece[:] = clusters[(offset_bytes + start) // _BLOCK][: len(piece)]

    plan = plan_qcow2(size_bytes, np.array(sorted(clusters), dtype=np.int64))
    return b"".join(bytes(piece) for piece in stream_qcow2(plan, fill))


class SparseDisk:
    """A ``DiskSource`` that holds some ranges, each beginning at a 64 KiB border; zeros are all between them."""

    def __init__(self, size_bytes: int, ranges: Mapping[int, bytes]) -> None:
        self.size_bytes = size_bytes
        self._ranges = dict(sorted(ranges.items()))

    def data_extents(self) -> Iterator[Extent]:
        """See ``DiskSource.data_extents``."""
        for offset_bytes, data in self._ranges.items():
            end = min(self.size_bytes, offset_bytes + -(-len(data) // _BLOCK) * _BLOCK)
            yield Extent(offset_bytes=offset_bytes, length_bytes=end - offset_bytes)

    def runs(self) -> Iterator[DataRun]:
        """See ``DiskSource.runs``; a range may come in several."""
        for offset_bytes, data in self._ranges.items():
            for start in range(0, len(data), 3 * _BLOCK):
                yield DataRun(offset_bytes + start, data[start : start + 3 * _BLOCK])

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``DiskSource.read``."""
        out = bytearray(length_bytes)
        for start, data in self._ranges.items():
            first, end = max(start, offset_bytes), min(start + len(data), offset_bytes + length_bytes)
            if first < end:
                out[first - offset_bytes : end - offset_bytes] = data[first - start : end - start]
        return bytes(out)
