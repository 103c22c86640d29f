"""Index objects: the trailers of many packs in one object, and a sample of the blocks in them.

A writer reads the samples (4 MB per TB stored) and finds known blocks by locality: a hit loads its pack's trailer and
the next one's. Invariant: an index is a cache. Without it more is stored than necessary, never less than needed, and
it can be rebuilt from the packs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.core import from_msgpack
from holdfast.repository import layout
from holdfast.repository.damage import ObjectDamaged
from holdfast.repository.layout import INDEX_PREFIX, FrameKind, ObjectKind, PackId
from holdfast.repository.packs.pack import SealedTrailer
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing, Part, RangeNotSatisfiable

__all__ = [
    "IndexHead",
    "IndexedPack",
    "iter_index_heads",
    "list_index_heads",
    "read_indexed_trailer",
    "sample_rows",
    "write_index",
]

_TAIL_GUESS_BYTES = 64 * 1024
"""Holds the head of an index of some 2 GB of stored data."""


class _HeadRecord(msgspec.Struct, frozen=True, kw_only=True):
    packs: bytes
    samples: bytes


@dataclass(frozen=True, slots=True)
class IndexedPack:
    """A pack for an index: its trailer as it lies in the pack, and the rows inside."""

    trailer: SealedTrailer
    rows: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class IndexHead:
    """What an index lists: packs in the order they were written, and samples that lead to them."""

    key: str
    packs: npt.NDArray[Any]
    samples: npt.NDArray[Any]

    def pack_ids(self) -> list[PackId]:
        """Return the ids of the packs, in order."""
        return [PackId(bytes(each)) for each in self.packs["pack"]]


def write_index(vault: Vault, packs: Sequence[IndexedPack]) -> str:
    """Store an index of these packs, in their order; return its name."""
    key = vault.fresh_name(INDEX_PREFIX)
    header = layout.INDEX_HEADER.pack(layout.INDEX_MAGIC, layout.FORMAT_VERSION, 0, vault.keys.repository_bytes)
    parts: list[Part] = [header]
    rows: npt.NDArray[Any] = np.zeros(len(packs), dtype=layout.INDEX_PACK_ROW)
    samples = []
    offset = len(header)
    for number, each in enumerate(packs):
        sealed = each.trailer.sealed
        row = rows[number]
        row["pack"], row["length"], row["rows"] = np.void(each.trailer.pack), each.trailer.pack_bytes, len(each.rows)
        row["trailer_offset"] = offset
        row["trailer_length"] = layout.trailer_word(len(sealed), epoch=each.trailer.epoch)
        samples.append(sample_rows(each.rows, number))
        parts.append(sealed)
        offset += len(sealed)
    sampled = np.concatenate(samples) if samples else np.zeros(0, dtype=layout.INDEX_SAMPLE_ROW)
    payload = msgspec.msgpack.encode(_HeadRecord(packs=rows.tobytes(), samples=sampled.tobytes()))
    head = vault.keys.seal_object(payload, kind=ObjectKind.INDEX, key=key, entropy=vault.entropy)
    parts += [head, layout.INDEX_TAIL.pack(layout.INDEX_TAIL_MAGIC, len(head))]
    vault.store.put(key, parts)
    return key


_SAMPLES_PER_PACK_MIN = 16
"""Below this a pack is sampled more densely. A pack of 1,024 blocks or more has one in 64; memory per TB stays."""


def sample_rows(rows: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    """Return the samples of one pack: one in 64 of its data blocks, chosen by the blocks' ids; more of a small pack.

    With one in 64 a pack of a few hundred blocks, as an increment writes it, might have no sample at all.
    """
    ids = np.frombuffer(rows["id"].tobytes(), dtype=np.uint8).reshape(-1, layout.ID_BYTES)
    mask = layout.SAMPLE_MASK
    while mask and len(rows) < _SAMPLES_PER_PACK_MIN * (mask + 1):
        mask >>= 1
    chosen = ids[((ids[:, 0] & mask) == 0) & (rows["kind"] != FrameKind.MAP)]
    samples: npt.NDArray[Any] = np.zeros(len(chosen), dtype=layout.INDEX_SAMPLE_ROW)
    samples["prefix"] = np.ascontiguousarray(chosen[:, :8]).view("<u8").reshape(-1)
    samples["pack"] = number
    return samples


def list_index_heads(vault: Vault) -> tuple[list[IndexHead], list[str]]:
    """Return all indexes that can be read, oldest first, and the names of those that are damaged."""
    heads, damaged = [], []
    for head in iter_index_heads(vault):
        if isinstance(head, str):
            damaged.append(head)
        else:
            heads.append(head)
    return heads, damaged


def iter_index_heads(vault: Vault) -> Iterator[IndexHead | str]:
    """Yield one index after the other, oldest first; only the name of one that is damaged."""
    for info in list(vault.names(INDEX_PREFIX)):
        try:
            yield _read_head(vault, info.key, info.length_bytes)
        except ObjectMissing:
            continue
        except (ObjectDamaged, RangeNotSatisfiable):
            yield info.key


def read_indexed_trailer(vault: Vault, head: IndexHead, number: int) -> SealedTrailer:
    """Return the copy of a trailer that an index keeps. Errors of the store; the seal is proven by whoever opens it."""
    row = head.packs[number]
    length_bytes, epoch = layout.parse_trailer_word(int(row["trailer_length"]))
    sealed = vault.store.get_range(head.key, offset_bytes=int(row["trailer_offset"]), length_bytes=length_bytes)
    return SealedTrailer(PackId(bytes(row["pack"])), int(row["length"]), sealed, epoch)


def _read_head(vault: Vault, key: str, size_bytes: int) -> IndexHead:
    guess_bytes = min(size_bytes, _TAIL_GUESS_BYTES)
    tail = vault.store.get_range(key, offset_bytes=size_bytes - guess_bytes, length_bytes=guess_bytes)
    if len(tail) < layout.INDEX_TAIL.size:
        raise ObjectDamaged(key=key, reason=f"it is only {size_bytes} bytes long")
    magic, head_bytes = layout.INDEX_TAIL.unpack_from(tail, len(tail) - layout.INDEX_TAIL.size)
    whole_bytes = head_bytes + layout.INDEX_TAIL.size
    if magic != layout.INDEX_TAIL_MAGIC or whole_bytes > size_bytes:
        raise ObjectDamaged(key=key, reason="it does not end as an index does")
    if whole_bytes > guess_bytes:
        tail = vault.store.get_range(key, offset_bytes=size_bytes - whole_bytes, length_bytes=whole_bytes)
    sealed = tail[len(tail) - whole_bytes : len(tail) - layout.INDEX_TAIL.size]
    try:
        payload = vault.keys.open_object(sealed, kind=ObjectKind.INDEX, key=key)
        record = from_msgpack(payload, _HeadRecord)
        packs = np.frombuffer(record.packs, dtype=layout.INDEX_PACK_ROW)
        samples = np.frombuffer(record.samples, dtype=layout.INDEX_SAMPLE_ROW)
    except (SealBroken, msgspec.DecodeError, ValueError) as cause:
        raise ObjectDamaged(key=key, reason=str(cause)) from cause
    if len(samples) and int(samples["pack"].max()) >= len(packs):
        raise ObjectDamaged(key=key, reason="a sample leads to a pack that is not listed")
    return IndexHead(key, packs, samples)
