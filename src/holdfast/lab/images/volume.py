"""Files inside a disk, and how to reach their bytes in place.

An ext4 file system is found by the partition table and read with a library; a disk with another one carries a table of
its files, and so does a data disk without any. Invariant: a file's extents are in file order and cover it without a
gap, so writing through them changes the file's bytes and nothing else; a file with holes is not offered.
"""

from __future__ import annotations

import io
import json
import stat
import struct
import zlib
from collections.abc import Iterator

from holdfast.core import KIB, SECTOR_BYTES, ExitStatus, HoldfastError
from holdfast.lab.disks import DiskStore
from holdfast.lab.images.file_table import PlacedFile, read_file_table
from holdfast.lab.images.partitions import partition_places
from holdfast.lab.images.spec import DATABASE_PATHS, LOG_PATHS
from holdfast.lab.images.superblock import SUPERBLOCKS_BYTES, FilesystemKind, has_filesystem
from holdfast.model import Extent

__all__ = ["FilesystemDamaged", "PlacedFile", "Volume", "open_volume", "pack_table"]

_TABLE_MAGIC = b"LABDISK1"
_TABLE_HEAD = struct.Struct(">8sII")
TABLE_BYTES = 4 * KIB
_FILES_MAX = 100_000


class FilesystemDamaged(HoldfastError):
    """What should be a file system on a lab disk cannot be read."""

    code = "lab.filesystem-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "The lab's disk was not changed."
    advice = "If the disk was restored, compare its hash with the snapshot's: the restore may be wrong."

    def __init__(self, *, disk: str, reason: str) -> None:
        super().__init__(f"lab disk {disk}: {reason}")
        self.disk, self.reason = disk, reason


class Volume:
    """The files of one disk. Reading and writing go through the store, so change tracking sees them.

    ``filesystem`` and ``base_bytes`` are its kind and where it begins; ``None`` on a disk without one.
    """

    def __init__(
        self,
        store: DiskStore,
        *,
        uuid: str,
        files: dict[str, PlacedFile],
        base_bytes: int | None = None,
        filesystem: FilesystemKind | None = None,
    ) -> None:
        self.files = files
        self.base_bytes = base_bytes
        self.filesystem = filesystem
        self._store = store
        self._uuid = uuid

    @property
    def database(self) -> PlacedFile | None:
        """The database, wherever this kind of machine keeps it."""
        return next((self.files[path] for path in DATABASE_PATHS if path in self.files), None)

    @property
    def log(self) -> PlacedFile | None:
        """The log that grows."""
        return next((self.files[path] for path in LOG_PATHS if path in self.files), None)

    def read(self, file: PlacedFile, offset_bytes: int, length_bytes: int) -> bytes:
        """Return a part of a file."""
        pieces = file.pieces(offset_bytes, length_bytes)
        return b"".join(self._store.read(self._uuid, piece.offset_bytes, piece.length_bytes) for piece in pieces)

    def write(self, file: PlacedFile, offset_bytes: int, data: bytes) -> None:
        """Change a part of a file in place."""
        done = 0
        for piece in file.pieces(offset_bytes, len(data)):
            self._store.write(self._uuid, piece.offset_bytes, data[done : done + piece.length_bytes])
            done += piece.length_bytes


def open_volume(store: DiskStore, uuid: str) -> Volume:
    """Return the files of a disk. ``GptDamaged`` or ``FilesystemDamaged`` when there is nothing to be found."""
    if store.read(uuid, 0, len(_TABLE_MAGIC)) == _TABLE_MAGIC:
        return Volume(store, uuid=uuid, files=_read_table(store, uuid))

    def read(offset_bytes: int, length_bytes: int) -> bytes:
        return store.read(uuid, offset_bytes, length_bytes)

    places = partition_places(read, size_bytes=store.size_bytes(uuid))
    if not places:
        raise FilesystemDamaged(disk=uuid, reason="its partition table is empty")
    table = read_file_table(store, uuid)
    if table is not None:
        files = {file.path: file for file in table.files}
        return Volume(store, uuid=uuid, files=files, base_bytes=table.base_bytes, filesystem=table.filesystem)
    whole = (place for place in places if place.length_bytes > SUPERBLOCKS_BYTES)
    base_bytes = next(
        (place.offset_bytes for place in whole if has_filesystem(read, "ext4", base_bytes=place.offset_bytes)),
        places[0].offset_bytes,
    )
    try:
        files = {file.path: file for file in _iter_ext4(store, uuid, base_bytes)}
    except Exception as cause:  # the library raises whatever a damaged structure makes it stumble over
        raise FilesystemDamaged(disk=uuid, reason=f"its file system cannot be read ({cause!r})") from cause
    return Volume(store, uuid=uuid, files=files, base_bytes=base_bytes, filesystem="ext4")


def pack_table(files: list[PlacedFile]) -> bytes:
    """Return the first bytes of a data disk: where its files are."""
    rows = [[file.path, file.extents[0].offset_bytes, file.size_bytes] for file in files]
    body = json.dumps(rows).encode()
    table = _TABLE_HEAD.pack(_TABLE_MAGIC, len(body), zlib.crc32(body)) + body
    assert len(table) <= TABLE_BYTES
    return table.ljust(TABLE_BYTES, b"\0")


def _read_table(store: DiskStore, uuid: str) -> dict[str, PlacedFile]:
    raw = store.read(uuid, 0, min(TABLE_BYTES, store.size_bytes(uuid)))
    _, length_bytes, checksum = _TABLE_HEAD.unpack_from(raw)
    body = raw[_TABLE_HEAD.size : _TABLE_HEAD.size + length_bytes]
    if zlib.crc32(body) != checksum:
        raise FilesystemDamaged(disk=uuid, reason="the checksum of its table of files is wrong")
    rows: list[tuple[str, int, int]] = json.loads(body)
    return {
        path: PlacedFile(path=path, size_bytes=length, extents=(Extent(offset_bytes=offset, length_bytes=length),))
        for path, offset, length in rows
    }


def _iter_ext4(store: DiskStore, uuid: str, offset_bytes: int) -> Iterator[PlacedFile]:
    from dissect.extfs import ExtFS  # here, because it takes most of a second to parse its structures

    stream = io.BufferedReader(_PartitionStream(store, uuid, offset_bytes), 64 * KIB)
    filesystem = ExtFS(stream)
    block_bytes: int = filesystem.block_size
    stack = [("", filesystem.root)]
    found = 0
    while stack and found < _FILES_MAX:
        prefix, folder = stack.pop()
        for node in folder.iterdir():
            if node.filename in (".", "..", "lost+found"):
                continue
            path = f"{prefix}{node.filename}"
            if node.filetype == stat.S_IFDIR:
                stack.append((f"{path}/", node))
            elif node.filetype == stat.S_IFREG:
                found += 1
                file = _place(path, node.size, node.dataruns(), block_bytes=block_bytes, base_bytes=offset_bytes)
                if file is not None:
                    yield file


def _place(
    path: str, size_bytes: int, runs: list[tuple[int | None, int]], *, block_bytes: int, base_bytes: int
) -> PlacedFile | None:
    """Return a file by its runs of blocks; ``None`` when it is empty or has holes."""
    extents = []
    left_bytes = size_bytes
    for block, count in runs:
        length_bytes = min(count * block_bytes, left_bytes)
        if length_bytes <= 0:
            break
        if block is None:
            return None
        extents.append(Extent(offset_bytes=base_bytes + block * block_bytes, length_bytes=length_bytes))
        left_bytes -= length_bytes
    return PlacedFile(path=path, size_bytes=size_bytes, extents=tuple(extents)) if extents else None


class _PartitionStream(io.RawIOBase):
    """A part of a lab disk as a file that a library can seek in."""

    def __init__(self, store: DiskStore, uuid: str, base_bytes: int) -> None:
        self._store, self._uuid, self._base_bytes = store, uuid, base_bytes
        self._end_bytes = store.size_bytes(uuid) // SECTOR_BYTES * SECTOR_BYTES - base_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._end_bytes - self._position))
        if count:
            self._store.read_into(self._uuid, self._base_bytes + self._position, view[:count])
        self._position += count
        return count
