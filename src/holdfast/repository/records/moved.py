"""Moved records: where frames lie now that were copied to another pack after their points were published.

Points and maps go on naming the old place. Invariant: a move leads to a slot with the same id as the old one; readers
compare it like any other. A pack that is called emptied holds nothing that is needed and has not moved.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.core import from_msgpack
from holdfast.repository.damage import ObjectDamaged
from holdfast.repository.layout import MOVED_PREFIX, MOVED_ROW, ObjectKind, PackId
from holdfast.repository.packs.pack_set import PackIds, PackSet, as_ids, ids_of
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.lease import pack_ids
from holdfast.repository.records.settled import read_settled
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault

__all__ = ["Moves", "Rows", "SlotGroup", "read_moves", "write_moves"]

_STEPS_MAX = 64
"""A frame is moved at most once in each clean-up, and records are flattened when they are merged; more is a circle."""

Rows = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]

_NO_ROWS: Rows = np.zeros(0, dtype=MOVED_ROW)


class _MovedRecord(msgspec.Struct, frozen=True, kw_only=True):
    rows: bytes
    emptied: bytes = b""


class _Table:
    """The rows of all records, by old place. A value."""

    def __init__(self, rows: Rows, emptied: PackSet) -> None:
        order = np.lexsort((np.arange(len(rows)), rows["old_slot"], ids_of(rows["old_pack"])))
        rows = rows[order]
        # Of rows for one place the last one counts; the order of the records was kept.
        is_last = np.ones(len(rows), dtype=np.bool_)
        is_last[:-1] = rows[["old_pack", "old_slot"]][1:] != rows[["old_pack", "old_slot"]][:-1]
        self.rows = rows[is_last]
        self.emptied = emptied
        starts = np.flatnonzero(_edges(ids_of(self.rows["old_pack"])))
        ends = np.append(starts, len(self.rows))[1:]
        packs = (PackId(each) for each in self.rows["old_pack"][starts].tolist())
        self.spans = dict(zip(packs, zip(starts.tolist(), ends.tolist(), strict=True), strict=True))

    def step(self, place: NodeAddress) -> NodeAddress | None:
        """Return where one move leads; None when there is none."""
        span = self.spans.get(place.pack)
        if span is None:
            return None
        rows = self.rows[span[0] : span[1]]
        at = int(np.searchsorted(rows["old_slot"], place.slot))
        if at == len(rows) or int(rows["old_slot"][at]) != place.slot:
            return None
        return NodeAddress(PackId(bytes(rows["new_pack"][at])), int(rows["new_slot"][at]))


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """Some of a row of places: those that lie in one pack now. ``at`` are their indices in that row."""

    at: Slots
    pack: PackId
    slots: Slots


class Moves:
    """All moves of a repository as of when they were read. Thread-safe."""

    def __init__(
        self,
        moves: Mapping[NodeAddress, NodeAddress] | Rows = _NO_ROWS,
        *,
        emptied: Collection[PackId] = (),
        vault: Vault | None = None,
        records: tuple[str, ...] = (),
    ) -> None:
        rows = moves if isinstance(moves, np.ndarray) else _rows_of(moves)
        self._table = _Table(rows, emptied if isinstance(emptied, PackSet) else PackSet(emptied))
        self._vault = vault
        self._lock = threading.Lock()
        self.records = records
        """The names of the records."""

    @property
    def emptied(self) -> PackSet:
        """The packs of which nothing is needed but what has moved; their objects may be gone."""
        return self._table.emptied

    @property
    def rows(self) -> Rows:
        """All rows, by old place, each old place once."""
        return self._table.rows

    def resolve(self, place: NodeAddress) -> NodeAddress:
        """Return where a frame lies now."""
        table = self._table
        for _ in range(_STEPS_MAX):
            further = table.step(place)
            if further is None:
                return place
            place = further
        raise _circle(place.pack)

    def moved_packs(self) -> Collection[PackId]:
        """Return the packs of which something has moved."""
        return self._table.spans.keys()

    def moved_slots(self) -> dict[PackId, Slots]:
        """Return by pack the slots that have moved, ascending."""
        return {pack: self._table.rows["old_slot"][first:end] for pack, (first, end) in self._table.spans.items()}

    def resolve_slots(self, pack: PackId, slots: Slots) -> list[SlotGroup]:
        """Return where slots that maps name lie now, grouped by the packs that hold them."""
        table = self._table
        waiting, settled = [(SlotGroup(np.arange(len(slots)), pack, slots), 0)], []
        while waiting:
            group, steps = waiting.pop()
            span = table.spans.get(group.pack)
            if steps > _STEPS_MAX:
                raise _circle(group.pack)
            if span is None:
                settled.append(group)
                continue
            rows = table.rows[span[0] : span[1]]
            found = np.minimum(np.searchsorted(rows["old_slot"], group.slots), len(rows) - 1)
            has_moved = rows["old_slot"][found] == group.slots
            if not has_moved.all():
                settled.append(SlotGroup(group.at[~has_moved], group.pack, group.slots[~has_moved]))
            for target, at, new in _by_target(rows[found[has_moved]], group.at[has_moved]):
                waiting.append((SlotGroup(at, target, new), steps + 1))
        return settled

    def has_row(self, row: np.void) -> bool:
        """Return whether exactly this row is known."""
        return self._table.step(NodeAddress(PackId(bytes(row["old_pack"])), int(row["old_slot"]))) == NodeAddress(
            PackId(bytes(row["new_pack"])), int(row["new_slot"])
        )

    def span(self, pack: PackId) -> tuple[int, int]:
        """Return where the rows of a pack begin and end."""
        return self._table.spans.get(pack, (0, 0))

    def next_ids(self) -> PackIds:
        """Return for every row the pack that it leads to."""
        return ids_of(self._table.rows["new_pack"])

    def next_packs(self, pack: PackId) -> PackSet:
        """Return the packs to which the rows of a pack lead, which may lead further."""
        first, end = self.span(pack)
        return PackSet(self.next_ids()[first:end])

    def reached(self, pack: PackId) -> set[PackId]:
        """Return the packs to which the moves of a pack lead in the end, emptied ones too."""
        first, end = self.span(pack)
        if first == end:
            return set()
        slots = self._table.rows["old_slot"][first:end].astype(np.int64)
        return {group.pack for group in self.resolve_slots(pack, slots)}

    def targets(self, pack: PackId) -> set[PackId]:
        """Return the packs in which frames of a pack lie now, without the pack itself.

        What leads into an emptied pack and not out of it is dead: nobody needs it.
        """
        return {target for target in self.reached(pack) if target not in self._table.emptied}

    def live_targets(self, live: Iterable[PackId]) -> set[PackId]:
        """Return the packs that are needed because a needed pack's frames were moved into them."""
        if not self._table.spans:
            return set()
        return {target for pack in live for target in self.targets(pack)}

    def holders_of(self, packs: Iterable[PackId]) -> set[PackId]:
        """Return the packs that hold what points need of packs that their tables name: without emptied ones."""
        named = set(packs)
        return {pack for pack in named if pack not in self._table.emptied} | self.live_targets(named)

    def reload(self) -> bool:
        """Read the records again; return whether they say anything new: then what is missing may be found now.

        For whoever finds a pack missing: it may have been emptied since the records were read.
        """
        if self._vault is None:
            return False
        with self._lock:
            before = self.records
            fresh = read_moves(self._vault)
            self._table, self.records = fresh._table, fresh.records
            return self.records != before

    def __len__(self) -> int:
        return len(self._table.rows)


def read_moves(vault: Vault) -> Moves:
    """Return all moves. A record that cannot be read is an error: what it moved could not be found."""
    rows, emptied = [_NO_ROWS], [PackSet().ids]
    found = read_settled(vault, MOVED_PREFIX, kind=ObjectKind.MOVED)
    for key, payload in found.items():
        try:
            if isinstance(payload, SealBroken):
                raise payload
            record = from_msgpack(payload, _MovedRecord)
            rows.append(np.frombuffer(record.rows, dtype=MOVED_ROW))
            emptied.append(as_ids(record.emptied))
        except (SealBroken, msgspec.DecodeError, ValueError) as cause:
            raise ObjectDamaged(key=key, reason=str(cause)) from cause
    together = PackSet(np.concatenate(emptied))
    return Moves(np.concatenate(rows), emptied=together, vault=vault, records=tuple(found))


def write_moves(
    vault: Vault, moves: Mapping[NodeAddress, NodeAddress] | Rows, *, emptied: Collection[PackId] = ()
) -> str:
    """Publish a moved record; return its name. The new packs are durable already."""
    rows = moves if isinstance(moves, np.ndarray) else _rows_of(moves)
    key = vault.fresh_name(MOVED_PREFIX)
    record = _MovedRecord(rows=rows.tobytes(), emptied=pack_ids(sorted(emptied)))
    vault.write(key, msgspec.msgpack.encode(record), kind=ObjectKind.MOVED)
    return key


def _rows_of(moves: Mapping[NodeAddress, NodeAddress]) -> Rows:
    rows: Rows = np.zeros(len(moves), dtype=MOVED_ROW)
    for row, (old, new) in zip(rows, moves.items(), strict=True):
        row["old_pack"], row["old_slot"] = np.void(old.pack), old.slot
        row["new_pack"], row["new_slot"] = np.void(new.pack), new.slot
    return rows


def _edges(ids: PackIds) -> npt.NDArray[np.bool_]:
    """Return where something else begins in a sorted array."""
    edges = np.ones(len(ids), dtype=np.bool_)
    edges[1:] = ids[1:] != ids[:-1]
    return edges


def _by_target(rows: Rows, at: Slots) -> Iterable[tuple[PackId, Slots, Slots]]:
    packs, places = np.unique(ids_of(rows["new_pack"]), return_inverse=True)
    for number, pack in enumerate(packs.view("V16").tolist()):
        here = places == number
        yield PackId(pack), at[here], rows["new_slot"][here].astype(np.int64)


def _circle(pack: PackId) -> ObjectDamaged:
    return ObjectDamaged(key=MOVED_PREFIX, reason=f"moves of pack {pack.hex()} lead in a circle")
