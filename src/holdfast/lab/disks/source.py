"""A disk of the lab as the ``DiskSource`` that exporters read.

Invariant: it is a view, not a copy; of a live disk it shows what is there at each read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from holdfast.core import BLOCK_BYTES, limits
from holdfast.model import DataRun, Extent

__all__ = ["StoreSource"]


class _Readable(Protocol):
    def size_bytes(self, uuid: str) -> int: ...

    def data_extents(
        self, uuid: str, *, offset_bytes: int = 0, length_bytes: int | None = None
    ) -> Iterator[Extent]: ...

    def read(self, uuid: str, offset_bytes: int, length_bytes: int) -> bytes: ...


class StoreSource:
    """One disk of a store. See ``model.DiskSource``."""

    def __init__(self, store: _Readable, *, uuid: str) -> None:
        self._store = store
        self._uuid = uuid
        self._size_bytes = store.size_bytes(uuid)

    @property
    def size_bytes(self) -> int:
        """See ``DiskSource.size_bytes``; fixed when the source was made."""
        return self._size_bytes

    def data_extents(self) -> Iterator[Extent]:
        """See ``DiskSource.data_extents``."""
        return self._store.data_extents(self._uuid, length_bytes=self._size_bytes)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``DiskSource.read``."""
        return self._store.read(self._uuid, offset_bytes, length_bytes)

    def runs(self) -> Iterator[DataRun]:
        """See ``DiskSource.runs``."""
        assert limits.RUN_BYTES_MAX % BLOCK_BYTES == 0
        for extent in self.data_extents():
            for offset in range(extent.offset_bytes, extent.end_bytes, limits.RUN_BYTES_MAX):
                length_bytes = min(limits.RUN_BYTES_MAX, extent.end_bytes - offset)
                yield DataRun(offset, self.read(offset, length_bytes))
