"""A stored disk as a ``DiskReader`` of everything in it, for writers that take disks from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from holdfast.model import Coverage, DiskSource, Run

__all__ = ["WholeReader"]


class WholeReader:
    """A ``DiskReader`` that reads a ``DiskSource`` whole."""

    def __init__(self, source: DiskSource) -> None:
        self._source = source

    @property
    def size_bytes(self) -> int:
        """See ``DiskReader.size_bytes``."""
        return self._source.size_bytes

    @property
    def coverage(self) -> Coverage:
        """See ``DiskReader.coverage``."""
        return Coverage.WHOLE

    @property
    def planned_bytes(self) -> int:
        """See ``DiskReader.planned_bytes``."""
        return sum(extent.length_bytes for extent in self._source.data_extents())

    def runs(self) -> Iterator[Run]:
        """See ``DiskReader.runs``."""
        return self._source.runs()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
