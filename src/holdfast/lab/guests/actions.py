"""What a guest does to one of its disks: changes files, rewrites database pages, appends to a log.

Everything goes through the store's ordinary write path, so change tracking, snapshots and space see it. Invariant: the
file system is clean to ``e2fsck`` after each action and in every snapshot taken meanwhile; each action returns what it
did.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core import KIB, SECTOR_BYTES, Entropy
from holdfast.lab.disks import DiskStore
from holdfast.lab.guests.files import change_files_in_place, change_files_with_debugfs
from holdfast.lab.images import (
    DATABASE_PAGE_BYTES,
    E2fsprogs,
    PlacedFile,
    Prose,
    Volume,
    new_generator,
    open_volume,
)

__all__ = ["DatabaseWritten", "FilesChanged", "Guest", "LogAppended"]

_PAGE_SIZES_BYTES = (4 * KIB, 8 * KIB, 16 * KIB)
_SIGNATURE_BYTES = 8
_LOG_HEAD_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesChanged:
    """What a change of files did; ``written_bytes`` counts file contents, not the file system's own structures."""

    created: int
    replaced: int
    deleted: int
    written_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseWritten:
    """What a burst of database writes did."""

    pages: int
    written_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAppended:
    """What appending did; a log that is full begins again at its start."""

    position_bytes: int
    written_bytes: int


class Guest:
    """One disk of a running VM, from inside. For one thread at a time."""

    def __init__(self, store: DiskStore, uuid: str, *, entropy: Entropy, tools: E2fsprogs | None = None) -> None:
        self._store = store
        self._uuid = uuid
        self._tools = tools or E2fsprogs.find()
        self._generator = new_generator(entropy)
        self._prose: Prose | None = None
        self._volume: Volume | None = None

    @property
    def disk(self) -> str:
        """The disk's uuid."""
        return self._uuid

    def change_files(self, count: int, total_bytes: int) -> FilesChanged:
        """Create, replace and delete ``count`` files or so, writing about ``total_bytes``.

        Where ``debugfs`` is absent, or the disk has no ext4 file system, contents are rewritten in place instead.
        """
        contents = self._contents(count, total_bytes)
        volume = self._open()
        if self._tools.debugfs is None or volume.filesystem != "ext4":
            replaced, written_bytes = change_files_in_place(volume, contents, generator=self._generator)
            return FilesChanged(created=0, replaced=replaced, deleted=0, written_bytes=written_bytes)
        plan = change_files_with_debugfs(
            self._store, self._uuid, volume, contents, debugfs=self._tools.debugfs, generator=self._generator
        )
        self._volume = None  # the files lie elsewhere now
        return FilesChanged(
            created=len(plan.created),
            replaced=len(plan.replaced),
            deleted=len(plan.deleted),
            written_bytes=sum(len(content) for content in contents),
        )

    def write_database_pages(self, fraction: float) -> DatabaseWritten:
        """Rewrite as many pages as that share of the database's 8 KiB pages, at least one; see ``rewrite_pages``."""
        database = self._open().database
        pages = 0 if database is None else database.size_bytes // DATABASE_PAGE_BYTES
        return self.rewrite_pages(max(1, round(pages * fraction)))

    def rewrite_pages(self, pages: int) -> DatabaseWritten:
        """Rewrite database pages in scattered places: 4, 8 or 16 KiB each, half of it changed.

        What changes becomes what another page holds, so the database stays as compressible as it was. The first pages,
        with the schema, are left alone. A disk without a database has no pages.
        """
        volume = self._open()
        database = volume.database
        if database is None:
            return DatabaseWritten(pages=0, written_bytes=0)
        written_bytes = sum(self._rewrite_page(volume, database) for _ in range(pages))
        return DatabaseWritten(pages=pages, written_bytes=written_bytes)

    def append_log(self, length_bytes: int) -> LogAppended:
        """Append lines of text to the log, which has its full size from the start and begins again when it is full.

        A disk without a log takes none.
        """
        volume = self._open()
        log = volume.log
        if log is None:
            return LogAppended(position_bytes=0, written_bytes=0)
        length_bytes = min(length_bytes, log.size_bytes - _LOG_HEAD_BYTES)
        position = _position(volume.read(log, 0, _LOG_HEAD_BYTES))
        if not _LOG_HEAD_BYTES <= position <= log.size_bytes - length_bytes:
            position = _LOG_HEAD_BYTES
        line = (self._text(99) + "\n").encode()
        volume.write(log, position, (line * (length_bytes // len(line) + 1))[:length_bytes])
        head = f"position={position + length_bytes:08d}\n".encode()
        volume.write(log, 0, head.ljust(_LOG_HEAD_BYTES, b"\n"))
        return LogAppended(position_bytes=position, written_bytes=length_bytes + _LOG_HEAD_BYTES)

    def _rewrite_page(self, volume: Volume, database: PlacedFile) -> int:
        draw = self._generator
        page_bytes = int(draw.choice(_PAGE_SIZES_BYTES))
        pages = database.size_bytes // page_bytes
        first = min(_PAGE_SIZES_BYTES[-1] // page_bytes, pages - 1)
        offset = int(draw.integers(first, pages)) * page_bytes
        other = int(draw.integers(first, pages)) * page_bytes
        page = np.frombuffer(volume.read(database, offset, page_bytes), dtype=np.uint8).reshape(-1, SECTOR_BYTES).copy()
        source = np.frombuffer(volume.read(database, other, page_bytes), dtype=np.uint8).reshape(-1, SECTOR_BYTES)
        picked = draw.random(len(page)) < 0.5
        page[picked] = source[picked]
        # A log sequence number at both ends, as databases have it: no two writes of a page are the same.
        page[0, _SIGNATURE_BYTES : 2 * _SIGNATURE_BYTES] = np.frombuffer(draw.bytes(_SIGNATURE_BYTES), dtype=np.uint8)
        page[-1, -_SIGNATURE_BYTES:] = np.frombuffer(draw.bytes(_SIGNATURE_BYTES), dtype=np.uint8)
        volume.write(database, offset, page.tobytes())
        return page_bytes

    def _contents(self, count: int, total_bytes: int) -> list[bytes]:
        """Return file contents of different sizes: two thirds text, one third as incompressible as media."""
        assert count > 0
        weights = self._generator.uniform(0.2, 1.8, count)
        sizes = np.maximum(1, (weights / weights.sum() * total_bytes)).astype(int).tolist()
        return [
            self._generator.bytes(size) if number % 3 == 2 else self._text(size).encode()
            for number, size in enumerate(sizes)
        ]

    def _text(self, characters: int) -> str:
        if self._prose is None:
            self._prose = Prose(self._generator)
        return self._prose.text(characters)

    def _open(self) -> Volume:
        if self._volume is None:
            self._volume = open_volume(self._store, self._uuid)
        return self._volume


def _position(head: bytes) -> int:
    """Return where the log goes on; its start when the head is not ours."""
    digits = head.removeprefix(b"position=")[:8]
    return int(digits) if digits.isdigit() else _LOG_HEAD_BYTES
