"""The two seams that every flow plugs into: a disk that is read, and a disk that is written.

A disk travels as *runs* in ascending order that never overlap. A data run carries bytes; a zero run says that a range
reads as zeros; a range that no run mentions is zero too when the reader covers the whole disk, and is *unchanged since
the reference* when the reader covers changes only.

Invariant: a run starts on a 64 KiB border, and ends on one or at the end of the disk.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from holdfast.core import BLOCK_BYTES

__all__ = ["Coverage", "DataRun", "DiskReader", "DiskSource", "DiskWriter", "Extent", "Run", "ZeroRun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A range of bytes on a disk. Extents of one disk never overlap."""

    offset_bytes: int
    length_bytes: int

    def __post_init__(self) -> None:
        assert self.offset_bytes >= 0
        assert self.length_bytes > 0

    @property
    def end_bytes(self) -> int:
        """The first byte after the range."""
        return self.offset_bytes + self.length_bytes


@dataclass(frozen=True, slots=True)
class DataRun:
    """Bytes of a disk. ``data`` is valid until the consumer returns from the call that received it, or longer if it is
    ``bytes``; whoever keeps it past that copies it. At most ``limits.RUN_BYTES_MAX`` long."""

    offset_bytes: int
    data: bytes | bytearray | memoryview

    def __post_init__(self) -> None:
        assert self.offset_bytes % BLOCK_BYTES == 0

    @property
    def length_bytes(self) -> int:
        """How much of the disk this run covers."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class ZeroRun:
    """A range that reads as zeros; any length, nothing was read for it."""

    offset_bytes: int
    length_bytes: int

    def __post_init__(self) -> None:
        assert self.offset_bytes % BLOCK_BYTES == 0
        assert self.length_bytes > 0


Run = DataRun | ZeroRun


class Coverage(enum.Enum):
    """What a range that a reader does not mention means."""

    WHOLE = "whole"
    """It is zero."""
    CHANGES = "changes"
    """It is as in the reference."""


class DiskReader(Protocol):
    """One disk at one moment, being read. A context manager; leaving the block frees every connection."""

    @property
    def size_bytes(self) -> int:
        """Provisioned size of the disk; a multiple of 512."""
        ...

    @property
    def coverage(self) -> Coverage:
        """What an unmentioned range means."""
        ...

    @property
    def planned_bytes(self) -> int:
        """How many bytes the data runs will carry at most; for progress."""
        ...

    def runs(self) -> Iterator[Run]:
        """Yield the runs in ascending order, once. Raises a typed error when the source fails or lies; then nothing
        that was yielded may be published."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class DiskWriter(Protocol):
    """One disk being written: into a repository, a pool or a file.

    Runs arrive in ascending order from one thread. A failure of background work surfaces at the next call.
    """

    def write(self, run: Run) -> None:
        """Accept one run; may block while too much is in flight. The run's data may be re-used after the return."""
        ...

    def abort(self) -> None:
        """Give up: stop background work, release memory. Safe to call twice, and after a failure."""
        ...


class DiskSource(Protocol):
    """A complete disk at one moment that can be read at random: a disk of a restore point, or a file."""

    @property
    def size_bytes(self) -> int:
        """Provisioned size of the disk; a multiple of 512."""
        ...

    def data_extents(self) -> Iterator[Extent]:
        """Yield the ranges that may hold anything but zeros, ascending, merged.

        They start on 64 KiB borders and end on one or at the end of the disk.
        """
        ...

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly that range; zeros where nothing is stored. Any alignment. Thread-safe."""
        ...

    def runs(self) -> Iterator[DataRun]:
        """Yield all data in ascending order, decoded ahead by worker threads; zeros are skipped."""
        ...
