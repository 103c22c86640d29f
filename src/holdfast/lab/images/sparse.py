"""Lab disks as sparse files, for tools that want a file, and back.

Invariant: what is written back is exactly the granules whose bytes differ, in one step, so that neither change tracking
nor a snapshot sees a write that the tool did not make.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.lab.disks import DiskStore
from holdfast.model import Extent

__all__ = ["absorb", "materialise", "pieces_of", "write_back"]

_PIECE_BYTES = 2 * MIB


def materialise(store: DiskStore, uuid: str, path: Path, *, part: Extent | None = None) -> None:
    """Write the disk, or a part of it, to a new sparse file."""
    part = part or Extent(offset_bytes=0, length_bytes=store.size_bytes(uuid))
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with path.open("xb", buffering=0) as file:
        file.truncate(part.length_bytes)
        for extent in store.data_extents(uuid, offset_bytes=part.offset_bytes, length_bytes=part.length_bytes):
            for offset in range(extent.offset_bytes, extent.end_bytes, _PIECE_BYTES):
                piece = buffer[: min(_PIECE_BYTES, extent.end_bytes - offset)]
                store.read_into(uuid, offset, piece)
                _write_at(file.fileno(), piece, offset - part.offset_bytes)


def absorb(store: DiskStore, uuid: str, path: Path) -> None:
    """Make a sparse file from the store's scratch folder the content of a disk that was never written; the file is gone
    then. What reads as zeros takes no space."""
    extents = [
        Extent(offset_bytes=offset + low, length_bytes=high - low)
        for offset, piece in pieces_of(path)
        for low, high in _nonzero_runs(piece)
    ]
    store.adopt(uuid, path, extents)


def write_back(store: DiskStore, uuid: str, path: Path) -> int:
    """Bring the disk to what the file holds and return how many bytes differed, in whole granules."""
    changes: list[tuple[int, bytes]] = []
    covered: set[int] = set()
    for offset, piece in pieces_of(path):
        before = store.read(uuid, offset, len(piece))
        for low in range(0, len(piece), BLOCK_BYTES):
            high = min(low + BLOCK_BYTES, len(piece))
            covered.add((offset + low) // BLOCK_BYTES)
            if piece[low:high] != before[low:high]:
                changes.append((offset + low, piece[low:high]))
    changes.extend(_emptied(store, uuid, covered))
    store.write_together(uuid, changes)
    return sum(len(data) for _, data in changes)


def _emptied(store: DiskStore, uuid: str, covered: set[int]) -> Iterator[tuple[int, bytes]]:
    """Yield zeros for granules that the disk has and the file has no longer."""
    for extent in store.data_extents(uuid):
        for offset in range(extent.offset_bytes, extent.end_bytes, BLOCK_BYTES):
            length_bytes = min(BLOCK_BYTES, extent.end_bytes - offset)
            if offset // BLOCK_BYTES not in covered and any(store.read(uuid, offset, length_bytes)):
                yield offset, bytes(length_bytes)


def pieces_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield what the file holds outside its holes, in pieces that begin on granule borders."""
    with path.open("rb", buffering=0) as file:
        descriptor, end = file.fileno(), os.fstat(file.fileno()).st_size
        position = 0
        while position < end:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole follows
                return
            stop = os.lseek(descriptor, start, os.SEEK_HOLE)
            position = max(position, start // BLOCK_BYTES * BLOCK_BYTES)
            stop = min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, end)
            while position < stop:
                piece = os.pread(descriptor, min(_PIECE_BYTES, stop - position), position)
                yield position, piece
                position += len(piece)


def _nonzero_runs(piece: bytes) -> Iterator[tuple[int, int]]:
    """Yield the runs of granules in which anything is not zero."""
    padded = np.zeros(-(-len(piece) // BLOCK_BYTES) * BLOCK_BYTES, dtype=np.uint8)
    padded[: len(piece)] = np.frombuffer(piece, dtype=np.uint8)
    flags = np.concatenate(([False], padded.reshape(-1, BLOCK_BYTES).any(axis=1), [False]))
    borders = np.flatnonzero(np.diff(flags.astype(np.int8))).tolist()
    for low, high in zip(borders[::2], borders[1::2], strict=True):
        yield low * BLOCK_BYTES, min(high * BLOCK_BYTES, len(piece))


def _write_at(descriptor: int, data: memoryview, offset_bytes: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset_bytes + done)
