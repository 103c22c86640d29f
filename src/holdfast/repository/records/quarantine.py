"""The quarantine: what a check found damaged or missing, written down so that nothing new is built on it.

Verification and scrub keep it; writers treat what is in it as if it were gone: such blocks are not known any more, so
the next backup that sees their content stores it anew, and healing leads to the new copies. Nothing is deleted, and
readers do not look here: what is still whole is still read. Invariant: losing a note loses knowledge, never data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

import msgspec
import numpy as np

from holdfast.core import format_time, from_msgpack
from holdfast.repository.layout import QUARANTINE_PREFIX, QUARANTINE_ROW, ObjectKind, PackId
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.avoided import AvoidedSlots
from holdfast.repository.records.lease import pack_ids, split_pack_ids
from holdfast.repository.records.sealed import each_record
from holdfast.repository.vault import Vault

__all__ = [
    "BrokenSlots",
    "Quarantine",
    "read_quarantine",
    "settle_quarantine",
    "spare_in_quarantine",
    "take_from_quarantine",
]

BrokenSlots = Mapping[PackId, frozenset[int] | None]
"""By pack the slots that are damaged; None when all of the pack is meant."""


class _NoteRecord(msgspec.Struct, frozen=True, kw_only=True):
    made_at: str
    packs: bytes
    slots: bytes = b""
    harmless: bytes = b""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What is known to be damaged. A value."""

    broken: BrokenSlots = field(default_factory=dict)
    harmless: frozenset[PackId] = frozenset()
    """Packs of which points need nothing that is broken: it was healed, or nobody ever needed it."""

    @property
    def harmful(self) -> frozenset[PackId]:
        """The packs with damage that hits points, as far as is known."""
        return frozenset(self.broken.keys() - self.harmless)

    @property
    def packs(self) -> frozenset[PackId]:
        """The packs of which nothing may be used."""
        return frozenset(pack for pack, slots in self.broken.items() if slots is None)

    @property
    def slots(self) -> AvoidedSlots:
        """The single slots that may not be used, of packs that are fine otherwise."""
        return AvoidedSlots({pack: slots for pack, slots in self.broken.items() if slots is not None})

    def __contains__(self, place: NodeAddress) -> bool:
        slots = self.broken.get(place.pack, frozenset())
        return slots is None or place.slot in slots

    def __len__(self) -> int:
        return len(self.broken)


def read_quarantine(vault: Vault) -> Quarantine:
    """Return everything in quarantine. A note that cannot be read is passed over; the next check renews it."""
    return _union(note for _, note in _notes(vault))


def settle_quarantine(
    vault: Vault, *, checked: Set[PackId], broken: BrokenSlots, harmless: Set[PackId], forgotten: Set[PackId]
) -> None:
    """Make the quarantine say what a check found: what is broken enters, packs that were found whole leave.

    For packs that are not among the ``checked``, what is broken adds to what was known.
    ``harmless`` are broken packs of which no point needs anything any more, ``forgotten`` packs that neither the store
    has nor any point names. The new note is durable before the old ones go: a crash in between leaves a pack too many,
    never one too few.
    """
    notes = _notes(vault)
    known = _union(note for _, note in notes)
    left = {pack: slots for pack, slots in known.broken.items() if pack not in checked and pack not in forgotten}
    wanted = _union([Quarantine(left), Quarantine(broken)]).broken
    spared = ((known.harmless - broken.keys()) | harmless) & wanted.keys()
    _replace(vault, notes, known, Quarantine(wanted, frozenset(spared)))


def take_from_quarantine(vault: Vault, whole: Iterable[NodeAddress]) -> None:
    """Let go of single slots that were read and found whole."""
    notes = _notes(vault)
    known = _union(note for _, note in notes)
    left = dict(known.broken)
    for place in whole:
        slots = left.get(place.pack)
        if slots is not None:
            left[place.pack] = slots - {place.slot}
    wanted = {pack: slots for pack, slots in left.items() if slots is None or slots}
    _replace(vault, notes, known, Quarantine(wanted, known.harmless & wanted.keys()))


def spare_in_quarantine(vault: Vault, harmless: Set[PackId]) -> None:
    """Note that points need nothing that is broken in these packs. Nothing new may refer to it all the same."""
    notes = _notes(vault)
    known = _union(note for _, note in notes)
    spared = known.harmless | (harmless & known.broken.keys())
    _replace(vault, notes, known, Quarantine(known.broken, spared))


def _replace(vault: Vault, notes: list[tuple[str, Quarantine]], known: Quarantine, wanted: Quarantine) -> None:
    if wanted == known:
        return
    if wanted.broken:
        _write(vault, wanted)
    for key, _ in notes:
        vault.store.delete(key)


def _write(vault: Vault, note: Quarantine) -> None:
    places = [(pack, slot) for pack, slots in sorted(note.broken.items()) for slot in sorted(slots or ())]
    rows = np.array(places, dtype=QUARANTINE_ROW)
    record = _NoteRecord(
        made_at=format_time(vault.clock.now()),
        packs=pack_ids(sorted(note.broken)),
        slots=rows.tobytes(),
        harmless=pack_ids(sorted(note.harmless)),
    )
    vault.write(vault.fresh_name(QUARANTINE_PREFIX), msgspec.msgpack.encode(record), kind=ObjectKind.QUARANTINE)


def _union(notes: Iterable[Quarantine]) -> Quarantine:
    """Return what several notes say together: the worse of it, where they differ."""
    broken: dict[PackId, frozenset[int] | None] = {}
    harmful: set[PackId] = set()
    for note in notes:
        harmful |= note.broken.keys() - note.harmless
        for pack, slots in note.broken.items():
            before = broken.get(pack, frozenset())
            broken[pack] = None if slots is None or before is None else before | slots
    return Quarantine(broken, frozenset(broken.keys() - harmful))


def _notes(vault: Vault) -> list[tuple[str, Quarantine]]:
    """Return the notes by name; one that cannot be read says nothing."""
    found = each_record(vault, QUARANTINE_PREFIX, kind=ObjectKind.QUARANTINE, parse=_parse)
    return [(key, note or Quarantine()) for key, note in found]


def _parse(payload: bytes) -> Quarantine:
    record = from_msgpack(payload, _NoteRecord)
    single: dict[PackId, set[int]] = {}
    for pack, slot in np.frombuffer(record.slots, dtype=QUARANTINE_ROW).tolist():
        single.setdefault(PackId(pack), set()).add(slot)
    broken = {pack: frozenset(single[pack]) if pack in single else None for pack in split_pack_ids(record.packs)}
    return Quarantine(broken, frozenset(split_pack_ids(record.harmless)) & broken.keys())
