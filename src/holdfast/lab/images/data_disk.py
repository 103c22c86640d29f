"""A disk that a database uses directly, without partitions or a file system; it does not boot.

Invariant: the same entropy gives the same bytes.
"""

from __future__ import annotations

import numpy as np

from holdfast.core import MIB, Entropy
from holdfast.lab.disks import DiskSizeInvalid, DiskStore
from holdfast.lab.images.database import write_database
from holdfast.lab.images.linux_root import new_log
from holdfast.lab.images.sparse import pieces_of
from holdfast.lab.images.spec import DATABASE_PATH, LOG_PATH, DataDiskSpec
from holdfast.lab.images.text import Prose, new_generator, noise
from holdfast.lab.images.volume import PlacedFile, pack_table
from holdfast.model import Extent

__all__ = ["fill_data_disk"]

_MEDIA_PATH = "media"
_PIECE_BYTES = 2 * MIB


def fill_data_disk(store: DiskStore, uuid: str, spec: DataDiskSpec, *, entropy: Entropy) -> None:
    """Fill a disk; the rest of it stays a hole. ``DiskSizeInvalid`` when the content does not fit."""
    size_bytes = store.size_bytes(uuid)
    generator = new_generator(entropy)
    files = _lay_out(spec)
    needed_bytes = files[-1].extents[-1].end_bytes
    if needed_bytes > size_bytes:
        raise DiskSizeInvalid(disk=uuid, size_bytes=size_bytes, reason=f"its content needs {needed_bytes}")
    database, media, log = files
    with store.scratch() as scratch:
        path = scratch / "database"
        write_database(path, spec.database_bytes, generator=generator)
        for offset, piece in pieces_of(path):
            store.write(uuid, database.extents[0].offset_bytes + offset, piece)
    _write_media(store, uuid, media.extents[0], generator=generator)
    store.write(uuid, log.extents[0].offset_bytes, new_log(spec.log_bytes))
    store.write(uuid, 0, pack_table(files))


def _lay_out(spec: DataDiskSpec) -> list[PlacedFile]:
    """Return database, media and log, one after the other on 1 MiB borders."""
    files = []
    offset = MIB
    for path, length in (
        (DATABASE_PATH, spec.database_bytes),
        (_MEDIA_PATH, spec.media_bytes),
        (LOG_PATH, spec.log_bytes),
    ):
        extent = Extent(offset_bytes=offset, length_bytes=length)
        files.append(PlacedFile(path=path, size_bytes=length, extents=(extent,)))
        offset = -(-extent.end_bytes // MIB) * MIB
    return files


def _write_media(store: DiskStore, uuid: str, extent: Extent, *, generator: np.random.Generator) -> None:
    """Fill with pieces that compress well, not at all, and with nothing, in turn."""
    prose = Prose(generator, corpus_bytes=max(extent.length_bytes // 8, MIB))
    for number, offset in enumerate(range(extent.offset_bytes, extent.end_bytes, _PIECE_BYTES)):
        length_bytes = min(_PIECE_BYTES, extent.end_bytes - offset)
        if number % 3 == 0:
            store.write(uuid, offset, prose.text(length_bytes).encode())
        elif number % 3 == 1:
            store.write(uuid, offset, noise(generator, length_bytes))
