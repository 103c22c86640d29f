"""Records of holes: slots of packs that nobody needs any more although other slots of the same packs are needed.

A record is durable before a frame is punched, and names its slots as long as the pack is there. Invariant: a writer
that could see a record refers to none of its slots; ``docs/formats/holes.md`` has the argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.core import MIB, format_time, from_msgpack, parse_time
from holdfast.repository.layout import FEATURES_PREFIX, HOLES_PREFIX, SLOTS_MAX, ObjectKind, PackId
from holdfast.repository.packs.pack_set import PackSet, ids_of
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.records.elapsed import Elapsed
from holdfast.repository.records.settled import read_settled
from holdfast.repository.safety import Safety
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectExists

__all__ = [
    "HOLES_FLAG",
    "Dead",
    "HolesBook",
    "HolesRecord",
    "PackHoles",
    "merge_holes",
    "merge_plan_bits",
    "read_holes",
    "require_holes",
    "write_holes",
]

HOLES_FLAG = "holes"
"""The write feature that keeps away writers that would not look at these records."""

_RECORD_PACKS_MAX = 65_536
"""Merged records name no more packs: 28 bytes of row for each, 2 MB."""

_RECORD_BITMAP_BYTES_MAX = 16 * MIB
"""Keeps the memory of whoever reads or merges one record small."""

_RECORDS_MAX = 32
"""More than this are merged: a writer reads each when it begins."""

_ROW = np.dtype([("pack", "V16"), ("slots", "<u4"), ("freed", "<u4"), ("estimate", "<u4")])

Dead = npt.NDArray[np.bool_]


class _HolesPayload(msgspec.Struct, frozen=True, kw_only=True):
    made_at: str
    punched: bool
    rows: bytes
    bitmaps: bytes


@dataclass(frozen=True, slots=True)
class PackHoles:
    """The slots of one pack that are dead, one flag for each slot, and how many bytes punching them gives back."""

    pack: PackId
    dead: Dead
    freed_bytes: int
    estimate_bytes: int
    """The most that one disk needed of the pack when this was found out, by its table."""


@dataclass(frozen=True, slots=True)
class HolesRecord:
    """A record as it was found: a plan, or what was punched."""

    key: str
    made_at: datetime
    is_punched: bool
    rows: npt.NDArray[Any]
    bitmaps: bytes

    def packs(self) -> PackSet:
        """Return the packs that it names."""
        return PackSet(ids_of(self.rows["pack"]))

    def holes(self) -> Iterator[PackHoles]:
        """Yield what it says, pack by pack."""
        offset = 0
        for pack, slots, freed_bytes, estimate_bytes in self.rows.tolist():
            length = -(-slots // 8)
            bits = np.frombuffer(self.bitmaps, dtype=np.uint8, count=length, offset=offset)
            dead = np.unpackbits(bits, count=slots, bitorder="little").astype(np.bool_)
            yield PackHoles(PackId(pack), dead, freed_bytes, estimate_bytes)
            offset += length

    def seems_abandoned(self, now: datetime, safety: Safety) -> bool:
        """Return whether its collector has stopped punching by it, if this machine's clock is right."""
        return (now - self.made_at).total_seconds() > safety.collection_s + safety.clock_skew_s

    def is_abandoned(self, elapsed: Elapsed, safety: Safety) -> bool:
        """Return whether its collector has certainly stopped punching by it."""
        lasts, margin = timedelta(seconds=safety.collection_s), timedelta(seconds=safety.clock_skew_s)
        return elapsed.is_over(self.made_at + lasts, key=self.key, lasts=lasts, margin=margin)


@dataclass(frozen=True, slots=True)
class HolesBook:
    """All records there are, oldest first, and the names of those that cannot be read."""

    records: tuple[HolesRecord, ...]
    damaged: tuple[str, ...]

    @property
    def plans(self) -> tuple[HolesRecord, ...]:
        """The records of what is about to be punched."""
        return tuple(each for each in self.records if not each.is_punched)

    @property
    def punched(self) -> tuple[HolesRecord, ...]:
        """The records of what is gone."""
        return tuple(each for each in self.records if each.is_punched)

    def avoided(self) -> AvoidedSlots:
        """Return every slot that nothing new may refer to."""
        slots: dict[PackId, npt.NDArray[np.uint16]] = {}
        for record in self.records:
            for each in record.holes():
                dead = np.flatnonzero(each.dead).astype(np.uint16)
                before = slots.get(each.pack)
                slots[each.pack] = dead if before is None else np.union1d(before, dead)
        return AvoidedSlots(slots)

    def gone(self, packs: PackSet) -> dict[PackId, PackHoles]:
        """Return what was punched in some packs."""
        found: dict[PackId, PackHoles] = {}
        for record in self.punched:
            for each in _picked(record, packs):
                found[each.pack] = _joined(found.get(each.pack), each)
        return found

    def freed_bytes(self, packs: PackSet) -> npt.NDArray[np.int64]:
        """Return for each pack of a set how many of its bytes were given back."""
        freed = np.zeros(len(packs), dtype=np.int64)
        for record in self.punched:
            places = packs.find(ids_of(record.rows["pack"]))
            here = places >= 0
            np.maximum.at(freed, places[here], record.rows["freed"][here].astype(np.int64))
        return freed

    def estimates(self, packs: PackSet, *, not_before: datetime) -> npt.NDArray[np.int64]:
        """Return for each pack of a set what the newest record says that one disk needed of it then; -1 without one."""
        estimates = np.full(len(packs), -1, dtype=np.int64)
        for record in self.punched:
            if record.made_at >= not_before:
                places = packs.find(ids_of(record.rows["pack"]))
                here = places >= 0
                estimates[places[here]] = record.rows["estimate"][here]
        return estimates


def merge_plan_bits(records: Iterable[HolesRecord], packs: PackSet) -> dict[PackId, Dead]:
    """Return by pack which slots any of the records names."""
    found: dict[PackId, Dead] = {}
    for record in records:
        for each in _picked(record, packs):
            before = found.get(each.pack)
            found[each.pack] = each.dead if before is None else before | each.dead
    return found


def require_holes(vault: Vault) -> None:
    """Return when no writer can begin any more that does not know holes."""
    try:
        vault.store.put(f"{FEATURES_PREFIX}write/{HOLES_FLAG}", b"")
    except ObjectExists:
        return


def read_holes(vault: Vault) -> HolesBook:
    """Return all records."""
    records, damaged = [], []
    for key, payload in read_settled(vault, HOLES_PREFIX, kind=ObjectKind.HOLES).items():
        try:
            if isinstance(payload, SealBroken):
                raise payload
            records.append(_record(key, payload))
        except (SealBroken, msgspec.DecodeError, ValueError):
            damaged.append(key)
    return HolesBook(tuple(records), tuple(damaged))


def write_holes(vault: Vault, holes: Sequence[PackHoles], *, punched: bool) -> HolesRecord:
    """Publish a record."""
    made_at = vault.clock.now()
    key = vault.fresh_name(HOLES_PREFIX)
    rows = np.zeros(len(holes), dtype=_ROW)
    bitmaps = []
    ordered = sorted(holes, key=lambda each: each.pack)
    for row, each in zip(rows, ordered, strict=True):
        row["pack"], row["slots"] = np.void(each.pack), len(each.dead)
        row["freed"], row["estimate"] = each.freed_bytes, each.estimate_bytes
        bitmaps.append(np.packbits(each.dead, bitorder="little").tobytes())
    payload = _HolesPayload(
        made_at=format_time(made_at), punched=punched, rows=rows.tobytes(), bitmaps=b"".join(bitmaps)
    )
    vault.write(key, msgspec.msgpack.encode(payload), kind=ObjectKind.HOLES)
    return HolesRecord(key, made_at, punched, rows, payload.bitmaps)


def merge_holes(vault: Vault, *, present: PackSet) -> None:
    """Make few records of many, without packs that are gone; drop those that name no pack that is there."""
    records = read_holes(vault).punched
    useful = [record for record in records if bool((present.find(record.packs().ids) >= 0).any())]
    for record in records:
        if record not in useful:
            vault.store.delete(record.key)
    if len(useful) <= _RECORDS_MAX:
        return
    merged: dict[PackId, PackHoles] = {}
    replaced, bitmap_bytes = [], 0
    for record in useful:
        if len(merged) + len(record.rows) > _RECORD_PACKS_MAX or bitmap_bytes > _RECORD_BITMAP_BYTES_MAX:
            break
        for each in _picked(record, present):
            merged[each.pack] = _joined(merged.get(each.pack), each)
        bitmap_bytes += len(record.bitmaps)
        replaced.append(record)
    if len(replaced) < 2:
        return
    write_holes(vault, list(merged.values()), punched=True)
    for record in replaced:
        vault.store.delete(record.key)


def _record(key: str, payload: bytes) -> HolesRecord:
    """Return the record in a payload. ValueError when it does not fit itself."""
    fields = from_msgpack(payload, _HolesPayload)
    rows = np.frombuffer(fields.rows, dtype=_ROW)
    slots = rows["slots"].astype(np.int64)
    if bool((slots > SLOTS_MAX).any()) or int((-(-slots // 8)).sum()) != len(fields.bitmaps):
        raise ValueError("its bitmaps do not fit its rows")
    return HolesRecord(key, parse_time(fields.made_at), fields.punched, rows, fields.bitmaps)


def _picked(record: HolesRecord, packs: PackSet) -> Iterable[PackHoles]:
    wanted = packs.find(ids_of(record.rows["pack"])) >= 0
    return (each for each, is_wanted in zip(record.holes(), wanted.tolist(), strict=True) if is_wanted)


def _joined(one: PackHoles | None, other: PackHoles) -> PackHoles:
    if one is None:
        return other
    freed_bytes = max(one.freed_bytes, other.freed_bytes)
    return PackHoles(one.pack, one.dead | other.dead, freed_bytes, other.estimate_bytes)
