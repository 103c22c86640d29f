"""Healing: leads from damaged places to whole ones with the same content, so that old restore points are whole again.

Content comes from what the repository stores anyway (the next backup stores a damaged block again, because nobody may
refer to it any more), or from a donor: another repository, an image of the disk. It is recognised by its id, which
the damaged pack's trailer, or the copy of it in an index, still names. Points, maps and damaged packs stay as they are.

Invariant: a moved record is published like a restore point: under a lease, after its targets were read, compared with
the id, and either stored by this run or found under the lease in a pack that may be used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from holdfast.core import BLOCK_BYTES, Progress, ProgressTask
from holdfast.repository.damage import Damage
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.packs.entries import place_of
from holdfast.repository.packs.frame import Frame
from holdfast.repository.packs.index import list_index_heads, read_indexed_trailer
from holdfast.repository.packs.pack import PackShelf
from holdfast.repository.packs.pack_writer import PackStream
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.packs.trailer import Trailer
from holdfast.repository.points.point import RestorePoint
from holdfast.repository.reading.damage_report import unhealed
from holdfast.repository.reading.hits import HitSearch, Witness
from holdfast.repository.reading.slots import read_slot
from holdfast.repository.records.moved import Moves, read_moves
from holdfast.repository.records.quarantine import BrokenSlots, spare_in_quarantine, take_from_quarantine
from holdfast.repository.vault import Vault
from holdfast.repository.writing.moving import publish_moves
from holdfast.repository.writing.session import WriteSession
from holdfast.storage import ObjectMissing, RangeNotSatisfiable

__all__ = ["Donor", "HealReport", "heal_from_donor", "heal_from_known"]

Donor = Callable[[Witness], Iterable[bytes]]
"""Yields what may be the bytes of a place on a disk of a restore point; the id tells whether they are."""

PACKS_AT_RUN_END_MAX = 256
"""A backup heals what is damaged in so many packs; after the loss of more, a scrub or ``heal`` takes all of them."""

_WOUNDS_AT_ONCE = 64
"""Packs that a donor is asked about together: at most a million slots are remembered at a time."""

_FRAMES_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class HealReport:
    """What a healing did."""

    healed_slots: int = 0
    """Damaged slots of which whole copies are read from now on."""
    left_slots: int = 0
    """Damaged slots for which no copy was found."""
    stored_bytes: int = 0
    """What was stored anew, from a donor."""
    failure: str = ""
    """Why healing was given up; empty when it was not."""

    def __add__(self, other: HealReport) -> HealReport:
        return HealReport(
            healed_slots=self.healed_slots + other.healed_slots,
            left_slots=other.left_slots,
            stored_bytes=self.stored_bytes + other.stored_bytes,
            failure=self.failure or other.failure,
        )


@dataclass(frozen=True, slots=True)
class _Wound:
    """The damaged slots of one pack, and what should be in them."""

    trailer: Trailer
    slots: tuple[int, ...]

    def place(self, slot: int) -> NodeAddress:
        return NodeAddress(self.trailer.pack, slot)


def heal_from_known(session: WriteSession, *, packs_max: int | None = None) -> tuple[HealReport, Moves]:
    """Lead from what is damaged to copies that the repository has, and return the moves as they are then."""
    moves = session.moves
    healed: dict[NodeAddress, NodeAddress] = {}
    wounded_slots = 0
    for wound in itertools.islice(_wounds(session, moves), packs_max):
        session.cancel.check()
        wounded_slots += len(wound.slots)
        healed.update(_known_copies(session, wound, moves))
    report = HealReport(healed_slots=len(healed), left_slots=wounded_slots - len(healed))
    return report, _publish(session, healed, moves)


def heal_from_donor(
    session: WriteSession,
    reading: Vault,
    points: Callable[[], Iterable[RestorePoint]],
    donor: Donor,
    *,
    moves: Moves,
    progress: Progress,
) -> HealReport:
    """Ask a donor for the content of what is damaged, store what is right, and lead there.

    ``reading`` reads what is left of the maps of ``points``, which tell where on a disk the content belongs.
    """
    report = HealReport()
    wounds = _wounds(session, moves)
    while batch := list(itertools.islice(wounds, _WOUNDS_AT_ONCE)):
        search = HitSearch(
            reading,
            moves=moves,
            broken={wound.trailer.pack: frozenset(wound.slots) for wound in batch},
            with_witnesses=True,
        )
        for point in points():
            session.cancel.check()
            search.add(point)
        wanted = _wanted_blocks(batch, search)
        with progress.start("damaged blocks", total_bytes=len(wanted) * BLOCK_BYTES) as task:
            stored, stored_bytes = _store_from(session, wanted, donor, task)
        healed = {place: stored[id] for place, (id, _) in wanted.items() if id in stored}
        moves = _publish(session, healed, moves)
        left_slots = sum(len(wound.slots) for wound in batch) - len(healed)
        report += HealReport(healed_slots=len(healed), left_slots=left_slots, stored_bytes=stored_bytes)
    return report


def _wounds(session: WriteSession, moves: Moves) -> Iterator[_Wound]:
    """Yield what is damaged, pack by pack, as far as a trailer still tells what was there."""
    vault = session.vault
    quarantine = session.quarantine
    broken = {pack: slots for pack, slots in unhealed(quarantine.broken, moves).items() if pack in quarantine.harmful}
    copies = _TrailerCopies(vault, {pack for pack, slots in broken.items() if slots is None})
    for pack, slots in sorted(broken.items()):
        try:
            trailer = copies.trailer(pack) if slots is None else vault.shelf.open(pack).trailer
        except Damage:
            continue
        if trailer is not None:
            candidates = range(len(trailer)) if slots is None else sorted(slots)
            unmoved = (slot for slot in candidates if slot < len(trailer))
            places = (NodeAddress(pack, slot) for slot in unmoved)
            yield _Wound(trailer, tuple(place.slot for place in places if moves.resolve(place) == place))


class _TrailerCopies:
    """The trailers of packs that are damaged as a whole: their own, or the copies in indexes."""

    def __init__(self, vault: Vault, packs: set[PackId]) -> None:
        self._vault = vault
        self._shelf = PackShelf(vault.store, vault.keys)
        heads = list_index_heads(vault)[0] if packs else []
        self._where = {
            pack: (head, number) for head in heads for number, pack in enumerate(head.pack_ids()) if pack in packs
        }

    def trailer(self, pack: PackId) -> Trailer | None:
        """Return the trailer of a pack; None when there is no copy of it left."""
        try:
            return self._vault.shelf.open(pack).trailer
        except Damage:
            pass
        if pack not in self._where:
            return None
        try:
            return self._shelf.adopt(read_indexed_trailer(self._vault, *self._where[pack])).trailer
        except (Damage, ObjectMissing, RangeNotSatisfiable):
            return None


def _known_copies(session: WriteSession, wound: _Wound, moves: Moves) -> dict[NodeAddress, NodeAddress]:
    """Return for damaged slots of a pack where the same content lies whole."""
    rows = wound.trailer.rows
    # All ids of the pack are asked for: by its neighbours a block is found that no sample leads to.
    ids: list[bytes] = rows["id"].tolist()
    entries = session.known.find(ids)
    nodes = _written_nodes(session) if (rows["kind"][list(wound.slots)] == FrameKind.MAP).any() else {}
    copies = {}
    for slot in wound.slots:
        place, entry = wound.place(slot), entries[slot]
        target = nodes.get(ids[slot])
        if int(rows["kind"][slot]) != FrameKind.MAP:
            target = None if entry is None else _place(session, entry)
        if target is not None and _is_whole_copy(session, place, target, ids[slot], moves):
            copies[place] = moves.resolve(target)
    return copies


def _written_nodes(session: WriteSession) -> dict[bytes, NodeAddress]:
    """Return where the map nodes lie that this run stored: an unchanged part of a disk gives the same node again."""
    nodes = {}
    for written in session.written():
        for slot in np.flatnonzero(written.rows["kind"] == FrameKind.MAP).tolist():
            nodes[bytes(written.rows["id"][slot])] = NodeAddress(written.trailer.pack, slot)
    return nodes


def _place(session: WriteSession, entry: int) -> NodeAddress:
    number, slot = place_of(entry)
    return NodeAddress(session.numbers.pack(number), slot)


def _is_whole_copy(session: WriteSession, place: NodeAddress, target: NodeAddress, id: bytes, moves: Moves) -> bool:
    """Return whether what lies at ``target`` can stand for a damaged place, after reading it."""
    final = moves.resolve(target)
    if final == place or final in session.quarantine or not session.presence.may_use(final.pack):
        return False
    vault = session.vault
    try:
        read_slot(vault, final, moves=moves)
        return vault.shelf.open(final.pack).trailer.id_of(final.slot) == id
    except Damage:
        return False


def _wanted_blocks(
    wounds: Sequence[_Wound], search: HitSearch
) -> Mapping[NodeAddress, tuple[bytes, Sequence[Witness]]]:
    """Return for damaged blocks their ids, and where on disks their content belongs. Map nodes no donor has."""
    wanted = {}
    for wound in wounds:
        for slot in wound.slots:
            place = wound.place(slot)
            witnesses = search.witnesses.get(place, ())
            if witnesses and int(wound.trailer.rows["kind"][slot]) != FrameKind.MAP:
                wanted[place] = (wound.trailer.id_of(slot), witnesses)
    return wanted


def _store_from(
    session: WriteSession,
    wanted: Mapping[NodeAddress, tuple[bytes, Sequence[Witness]]],
    donor: Donor,
    task: ProgressTask,
) -> tuple[dict[bytes, NodeAddress], int]:
    """Store the blocks that a donor has; return where each lies, durable, and how many bytes that took."""
    stored: dict[bytes, NodeAddress] = {}
    stream = session.dock.open_stream()
    try:
        fresh: dict[bytes, Frame] = {}
        for id, witnesses in wanted.values():
            session.cancel.check()
            session.keeper.renew_if_due()
            block = None if id in stored or id in fresh else _ask(session, id, witnesses, donor)
            task.advance(BLOCK_BYTES)
            if block is not None:
                fresh[id] = session.compressor.frame(block, ids=(id,), kind=FrameKind.DATA)
            if len(fresh) >= _FRAMES_AT_ONCE:
                stored.update(_store(session, stream, fresh))
                fresh = {}
        stored.update(_store(session, stream, fresh))
        stream.close()
    except BaseException:
        stream.abort()
        raise
    return stored, stream.stored_bytes


def _store(session: WriteSession, stream: PackStream, frames: Mapping[bytes, Frame]) -> dict[bytes, NodeAddress]:
    entries = stream.store(list(frames.values())) if frames else []
    return {id: _place(session, entry) for id, entry in zip(frames, entries, strict=True)}


def _ask(session: WriteSession, id: bytes, witnesses: Sequence[Witness], donor: Donor) -> bytes | None:
    """Return the block with this id, if the donor has it where one of the disks had it."""
    for witness in witnesses:
        for content in donor(witness):
            block = content.ljust(BLOCK_BYTES, b"\0")
            if blake3(block, key=session.vault.keys.block_id_key).digest() == id:
                return block
    return None


def _publish(session: WriteSession, healed: Mapping[NodeAddress, NodeAddress], moves: Moves) -> Moves:
    """Publish moves, like a restore point under the lease; return all moves there are then."""
    if not healed:
        return moves
    publish_moves(session.vault, healed, check_before=session.keeper.check)
    moves = read_moves(session.vault)
    left = unhealed(session.quarantine.broken, moves)
    spare_in_quarantine(session.vault, {place.pack for place in healed if place.pack not in left})
    take_from_quarantine(session.vault, _whole_patches(session.vault, left, moves))
    return moves


def _whole_patches(vault: Vault, broken: BrokenSlots, moves: Moves) -> list[NodeAddress]:
    """Return the patches among what is broken that are whole again, because the block that they patch is."""
    whole = []
    for pack, slots in broken.items():
        for place in (NodeAddress(pack, slot) for slot in slots or ()):
            try:
                opened = vault.shelf.open(pack)
                opened.frame_extent(place.slot)
                if int(opened.trailer.rows["kind"][place.slot]) == FrameKind.PATCH:
                    read_slot(vault, place, moves=moves)
                    whole.append(place)
            except Damage:
                continue
    return whole
