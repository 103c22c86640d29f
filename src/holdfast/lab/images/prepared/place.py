"""Putting a prepared file system onto a disk, and bytes into its files.

Invariant: only blocks of the file system's structures and of its files are written, so what its own checker found clean
when it was made stays clean; the same generator state gives the same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib import resources
from itertools import groupby

import numpy as np

from holdfast.core import MIB
from holdfast.lab.disks import DiskStore
from holdfast.lab.images.boot_record import new_boot_file
from holdfast.lab.images.database import write_database
from holdfast.lab.images.file_table import PlacedFile
from holdfast.lab.images.linux_root import etc_files, new_log
from holdfast.lab.images.prepared.layout import (
    PREPARED_BLOCK_BYTES,
    PreparedFile,
    PreparedFilesystem,
    unpack_prepared,
)
from holdfast.lab.images.sparse import pieces_of
from holdfast.lab.images.spec import BOOT_PATH, DATABASE_PATHS, LOG_PATHS
from holdfast.lab.images.superblock import FilesystemKind
from holdfast.lab.images.text import Prose, noise
from holdfast.model import Extent

__all__ = ["PREPARED", "Writer", "fill_files", "load_prepared", "place_structures", "placed_files"]

PREPARED = (
    "btrfs-server",
    "ext4-server",
    "ntfs-data",
    "ntfs-windows",
    "vfat-esp",
    "xfs-archive",
    "xfs-data",
    "xfs-server",
)
"""What there is."""

_BOOT_PATHS = (BOOT_PATH, "Windows/System32/winload.efi")
_RUN_BLOCKS_MAX = 2 * MIB // PREPARED_BLOCK_BYTES
_HIDDEN_SECTORS_AT = 0x1C
_COPIES: dict[FilesystemKind, tuple[int, ...]] = {"ntfs": (0, -512), "vfat": (0, 6 * 512)}
"""Where the boot sector and its copy lie, in file systems that write down how far from the disk's start they are."""

Writer = Callable[[int, bytes], None]
"""Writes bytes at an offset from the start of the file system."""


@functools.cache
def load_prepared(name: str) -> PreparedFilesystem:
    """Return a committed file system by its name, one of ``PREPARED``."""
    return unpack_prepared(resources.files(__package__).joinpath(f"{name}.bin").read_bytes())


def place_structures(filesystem: PreparedFilesystem, write: Writer, *, disk_offset_bytes: int) -> None:
    """Write everything but the contents of files. The place of all that is not written must read as zeros."""
    for _, run in groupby(enumerate(filesystem.blocks), key=lambda each: each[1][0] - each[0]):
        blocks = [block for _, block in run]
        for low in range(0, len(blocks), _RUN_BLOCKS_MAX):
            part = blocks[low : low + _RUN_BLOCKS_MAX]
            write(part[0][0] * PREPARED_BLOCK_BYTES, b"".join(content for _, content in part))
    for copy in _COPIES.get(filesystem.kind, ()):
        place = copy % filesystem.size_bytes + _HIDDEN_SECTORS_AT
        write(place, (disk_offset_bytes // 512).to_bytes(4, "little"))


def fill_files(
    filesystem: PreparedFilesystem,
    write: Writer,
    *,
    store: DiskStore,
    hostname: str,
    content_bytes: int,
    generator: np.random.Generator,
) -> None:
    """Give the files their contents; of programs, libraries and media no more than ``content_bytes``, the rest are
    zeros that take no space."""
    configuration = etc_files(hostname, uuid="1ab00000-0000-4000-8000-000000000002")
    prose = Prose(generator, corpus_bytes=MIB)
    left_bytes = content_bytes
    for number, file in enumerate(filesystem.files):
        if file.path in DATABASE_PATHS:
            _fill_database(file, write, store=store, generator=generator, prose=prose)
            continue
        if file.path in _BOOT_PATHS:
            content = new_boot_file(generator, length_bytes=file.size_bytes)
        elif file.path in LOG_PATHS:
            content = new_log(file.size_bytes)
        elif file.path in configuration:
            content = configuration[file.path].ljust(file.size_bytes, b"\n")
        else:
            length_bytes = min(file.size_bytes, left_bytes)
            left_bytes -= length_bytes
            content = prose.text(length_bytes).encode() if number % 2 else noise(generator, length_bytes)
        _write_file(file, write, content)


def placed_files(filesystem: PreparedFilesystem, *, base_bytes: int) -> tuple[PlacedFile, ...]:
    """Return the files with their places on a disk on which the file system begins at ``base_bytes``."""
    return tuple(
        PlacedFile(
            path=file.path,
            size_bytes=file.size_bytes,
            extents=tuple(
                Extent(offset_bytes=base_bytes + extent.offset_bytes, length_bytes=extent.length_bytes)
                for extent in file.extents
            ),
        )
        for file in filesystem.files
    )


def _fill_database(
    file: PreparedFile, write: Writer, *, store: DiskStore, generator: np.random.Generator, prose: Prose
) -> None:
    with store.scratch() as scratch:
        path = scratch / "database"
        write_database(path, file.size_bytes, generator=generator, prose=prose)
        for offset, piece in pieces_of(path):
            _write_file(file, write, piece, offset_bytes=offset)


def _write_file(file: PreparedFile, write: Writer, content: bytes, *, offset_bytes: int = 0) -> None:
    for place, piece in _pieces(file, content, offset_bytes):
        write(place, piece)


def _pieces(file: PreparedFile, content: bytes, offset_bytes: int) -> Iterator[tuple[int, bytes]]:
    start, end_bytes = 0, offset_bytes + len(content)
    for extent in file.extents:
        low, high = max(offset_bytes, start), min(end_bytes, start + extent.length_bytes)
        if low < high:
            yield extent.offset_bytes + low - start, content[low - offset_bytes : high - offset_bytes]
        start += extent.length_bytes
