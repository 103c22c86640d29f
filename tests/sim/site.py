"""One repository of a simulated world, as it truly is: what lies in its store, what points need, what must hold.

Invariants, checked while actors work and between rounds: a pack that a point needs is never deleted, a frame that one
needs is never punched; every published point restores what was backed up, or meets damage that was planted; a point is
never held longer than what it needs; nothing but what points need stays in the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from holdfast.core import Cancellation, Clock, Entropy, ManualClock, NoProgress
from holdfast.model import Extent, RunId
from holdfast.repository import (
    Damage,
    DamageFound,
    GcSettings,
    IdentityHolder,
    IdentityUnlock,
    NodeAddress,
    OpenHolder,
    OpenUnlock,
    PackDamaged,
    PackMissing,
    Repository,
    RestorePoint,
    Unlock,
    create_repository,
    new_recovery_key,
    open_repository,
)
from holdfast.repository.keys.epochs import hold_keys
from holdfast.repository.layout import PACKS_PREFIX, FrameKind, PackId, pack_key, parse_pack_key
from holdfast.repository.packs.pack_set import PackSet
from holdfast.repository.records.moved import read_moves
from holdfast.repository.records.quarantine import Quarantine, read_quarantine
from holdfast.repository.sealing import KeyRing
from holdfast.repository.space.gc_geometry import carve, dead_frames, live_frame_bytes, slots_to_split
from holdfast.repository.space.gc_look import SlotLook
from holdfast.repository.vault import Vault
from holdfast.storage import CappedStore, LaggingStore, MemoryStore, ObjectInfo, ObjectStore
from holdfast.storage.wrapper import StoreWrapper
from tests.sim.disks import Content, Palette, read_content
from tests.sim.process import Process, ProcessStore
from tests.support.repositories import TEST_SAFETY

__all__ = ["GC", "Ground", "Site", "Traits"]

GC = GcSettings(is_thorough=True, moved_live_part_max=0.6, hole_bytes=512, batch_slots_max=40)
"""Every pack is worth a look, a few at a time."""

_RECOVERY = new_recovery_key()
_HOLDER = IdentityHolder("machine", _RECOVERY.public)
_KEYED_UNLOCK = IdentityUnlock(_RECOVERY.secret)

_MAY_BE_LATE = ("index/", "catalogue/", "proofs/", "quarantine/")
"""Listings on which nothing rests but time and space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What kind of repository and store a site has."""

    pack_bytes_max: int
    can_punch: bool = True
    seems_able_to_punch: bool = False
    is_keyed: bool = False
    """It is opened with a key, so that its data key can be rotated."""
    late_changes: int = 0
    """By how many changes listings are late."""
    capacity_bytes: int | None = None
    is_timed: bool = True
    """The store tells when objects came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all sites of a world stand on."""

    clock: ManualClock
    entropy: Entropy
    expected: Mapping[RunId, Content]
    """What each run has backed up."""


class _NoHoles(StoreWrapper):
    """A store that cannot give back a part of an object, and may tell so only when it is tried."""

    def __init__(self, inner: ObjectStore, *, seems_able: bool) -> None:
        super().__init__(inner)
        self._seems_able = seems_able

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        self._inner.size(key)
        return 0 if self._seems_able and not extents else None


class _Timeless(StoreWrapper):
    """A store without a clock."""

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        self._inner.size(key)
        return None


class _Patient(StoreWrapper):
    """Waits until late listings have caught up wherever something rests on them."""

    def __init__(self, inner: LaggingStore) -> None:
        super().__init__(inner)
        self._late = inner

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        if not prefix.startswith(_MAY_BE_LATE):
            self._late.settle()
        return self._inner.list(prefix)


class Site:
    """A repository and its store. ``rotten`` names the packs in which damage was planted."""

    def __init__(self, traits: Traits, ground: Ground, *, palette: Palette | None = None) -> None:
        """``palette``: the contents that its disks have; new ones unless it is given."""
        self.traits = traits
        self.memory = MemoryStore(clock=ground.clock)
        self.rotten: dict[str, bool] = {}
        """By the key of a pack in which damage was planted: whether a donor can heal all of it."""
        self.capped: CappedStore | None = None
        self._ground = ground
        self.store: ObjectStore = self._wrapped()
        self.unlock: Unlock = _KEYED_UNLOCK if traits.is_keyed else OpenUnlock()
        self.id = create_repository(
            self.store,
            holders=[_HOLDER if traits.is_keyed else OpenHolder()],
            clock=ground.clock,
            entropy=ground.entropy,
            pack_bytes_max=traits.pack_bytes_max,
            workers=0,
            safety=TEST_SAFETY,
        ).id
        self.palette = palette or Palette(self._keys())

    def _wrapped(self) -> ObjectStore:
        traits = self.traits
        store: ObjectStore = self.memory
        if traits.capacity_bytes is not None:
            store = self.capped = CappedStore(store, capacity_bytes=traits.capacity_bytes)
        if traits.late_changes:
            store = _Patient(LaggingStore(store, lag_changes=traits.late_changes))
        if not traits.can_punch:
            store = _NoHoles(store, seems_able=traits.seems_able_to_punch)
        return store if traits.is_timed else _Timeless(store)

    def seen_by(self, process: Process) -> ObjectStore:
        """Return the store as a process sees it."""
        return ProcessStore(self.store, process, on_delete=self._check_delete, on_punch=self._check_punch)

    def open(self, store: ObjectStore, clock: Clock) -> Repository:
        """Return the repository as somebody with this store and clock opens it."""
        return open_repository(
            store, unlock=self.unlock, clock=clock, entropy=self._ground.entropy, workers=0, safety=TEST_SAFETY
        )

    def truth(self) -> Repository:
        """Return the repository as it is, outside of all turns and faults."""
        return self.open(self.store, self._ground.clock)

    def names(self, prefix: str) -> list[str]:
        """Return the names of the objects that are there."""
        return [info.key for info in self.memory.list(prefix)]

    def lift_the_cap(self) -> None:
        """Let the store be as large as it must."""
        if self.capped is not None:
            self.capped = CappedStore(self.memory, capacity_bytes=1 << 40)
            self.store = self.capped if self.traits.can_punch else _NoHoles(self.capped, seems_able=False)

    # Damage.

    def plant_damage(self, chance: random.Random) -> str | None:
        """Flip a bit of a pack, cut it short or lose it; return what was done, None when there is no pack."""
        packs = [key for key in self.names(PACKS_PREFIX) if key not in self.rotten]
        if not packs:
            return None
        key = chance.choice(packs)
        objects = dict(self.memory.snapshot())
        content = bytearray(objects.pop(key))
        place = chance.randrange(len(content))
        way = chance.choices(["flip", "cut", "lose"], weights=[8, 1, 1])[0]
        self.rotten[key] = way == "flip" and self._is_block(key, place)
        if way == "flip":
            content[place] ^= 1 << chance.randrange(8)
            objects[key] = bytes(content)
        elif way == "cut":
            objects[key] = bytes(content[:place])
        self.memory.restore(objects)
        return f"{way} {key} at {place}"

    def _is_block(self, key: str, place: int) -> bool:
        """Return whether a place in a pack belongs to a whole block of a disk, as a donor can give it."""
        pack = parse_pack_key(key)
        assert pack is not None
        trailer = self._vault().shelf.open(pack).trailer
        return any(
            int(kind) == FrameKind.DATA and int(offset) <= place < int(offset) + int(length)
            for kind, offset, length in zip(trailer.rows["kind"], trailer.offsets, trailer.rows["length"], strict=True)
        )

    # What must hold.

    def _check_delete(self, key: str) -> None:
        pack = parse_pack_key(key)
        if pack is not None and key not in self.rotten:
            moves = read_moves(self._vault())
            for point in self.truth().points():
                needed = moves.holders_of(each for each, _ in point.packs())
                assert pack not in needed, f"{key} is deleted, but {point.id} needs it"

    def _check_punch(self, key: str, extents: Sequence[Extent]) -> None:
        pack = parse_pack_key(key)
        assert pack is not None
        if not extents or not self.names(key) or key in self.rotten:
            return
        try:
            trailer, look = self._vault().shelf.open(pack).trailer, self._look([pack])
        except Damage as damage:
            self.excuse(damage)
            return
        for slot in np.flatnonzero(look.live[0]).tolist():
            start = int(trailer.offsets[slot])
            end = start + int(trailer.rows["length"][slot - int(trailer.rows["index"][slot])])
            hit = any(extent.offset_bytes < end and start < extent.end_bytes for extent in extents)
            assert not hit, f"slot {slot} of {key} is punched, but needed"

    def _look(self, packs: Iterable[PackId]) -> SlotLook:
        """Return which slots of packs the points need now."""
        vault, wanted = self._vault(), PackSet(packs)
        counts = [len(vault.shelf.open(pack).trailer) for pack in wanted]
        look = SlotLook(vault, wanted, counts, workers=0, cancel=Cancellation())
        look.look(read_moves(vault))
        return look

    def check_points(self, *, fully: bool = True) -> None:
        """Check that all points restore; with ``fully`` that a verification agrees."""
        repository = self.truth()
        assert repository.damaged_points() == []
        seen = set()
        for point in repository.points():
            identity = (point.facts.run, point.facts.vm.uuid)
            assert identity not in seen, f"{identity} was published twice"
            seen.add(identity)
            self.check_point(repository, point)
            self._check_locks(point)
        if fully:
            report = repository.verify(None, progress=NoProgress(), cancel=Cancellation())
            self.check_told(report.damage)

    def check_point(self, repository: Repository, point: RestorePoint) -> None:
        """Check that a point restores what was backed up, or meets damage that was planted."""
        try:
            found = read_content(repository, self.palette, point.disks[0].stored, Cancellation())
        except Damage as damage:
            if point.key in self.names(point.key):
                self.excuse(damage)
            return
        assert found == self._ground.expected[point.facts.run], f"{point.id} restores something else"

    def known_damage(self) -> Quarantine:
        """Return what everybody can know to be damaged now."""
        return read_quarantine(self._vault()) if self.rotten else Quarantine()

    def check_avoids(self, point: RestorePoint, known: Quarantine) -> None:
        """Check that a new point does not lead to what was known to be damaged before its disk was stored."""
        if len(known):
            try:
                read_content(self.truth(), self.palette, point.disks[0].stored, Cancellation())
            except (PackDamaged, PackMissing) as damage:
                place = NodeAddress(damage.pack, getattr(damage, "slot", None) or 0)
                assert place not in known, f"{point.id} was built upon known damage: {damage}"

    def check_told(self, damage: Iterable[DamageFound]) -> None:
        """Check that only planted damage is told, and patches that need what it has hit."""
        for found in damage:
            if found.hits and found.object not in self.rotten:
                assert self.rotten, f"{found.object} is called damaged, but nothing is"
                assert self._are_patches(found), f"{found.object} is called damaged: {found.reason}"

    def _are_patches(self, found: DamageFound) -> bool:
        pack = parse_pack_key(found.object)
        assert pack is not None
        kinds = self._vault().shelf.open(pack).trailer.rows["kind"]
        return bool(found.slots) and all(int(kinds[slot]) == FrameKind.PATCH for slot in found.slots)

    def excuse(self, damage: Damage) -> None:
        """Raise what is not the work of planted damage."""
        if not any(key in str(damage) for key in self.rotten):
            raise damage

    def _check_locks(self, point: RestorePoint) -> None:
        until = self.memory.locked_until(point.key)
        if until is None:
            return
        for pack in read_moves(self._vault()).holders_of(each for each, _ in point.packs()):
            if pack_key(pack) not in self.rotten:
                held = self.memory.locked_until(pack_key(pack))
                assert held is not None, f"{point.id} is held, but not {pack_key(pack)}"
                assert held >= until, f"{point.id} is held longer than {pack_key(pack)}"

    def heal(self) -> None:
        """Heal with a donor who has all that was ever backed up; all that it can give must be whole then."""
        if not self.rotten:
            return
        repository = self.truth()
        repository.verify(None, progress=NoProgress(), cancel=Cancellation())
        done = repository.care.heal(
            lambda witness: [self.palette.piece(self._ground.expected[witness.point.facts.run], witness.extent)],
            progress=NoProgress(),
            cancel=Cancellation(),
        )
        self.check_told(done.damage)
        left = [each for each in done.damage if each.hits]
        could = [each.object for each in left if self.rotten.get(each.object, False)]
        assert not could, f"{could} could be healed, {done.healed}"

    def check_end(self) -> None:
        """Check that nothing is left that no point needs: no pack, no frame, no list, no lease."""
        repository = self.truth()
        for _ in range(3):
            repository.apply_gc(repository.plan_gc(settings=GC), cancel=Cancellation(), settings=GC)
        self.check_points()
        named = {pack for point in repository.points() for pack, _ in point.packs()}
        needed = read_moves(self._vault()).holders_of(named)
        there = {parse_pack_key(key) for key in self.names(PACKS_PREFIX)}
        lost = {parse_pack_key(key) for key in self.rotten} - there
        assert there == needed - lost, "packs are left that no point needs"
        if not self.rotten:
            self._check_frames(needed)
        assert self.names("leases/") == []
        assert self.names("condemned/") == []

    def _check_frames(self, needed: Iterable[PackId]) -> None:
        """Check that no frame is left that could be punched, now or split, and no pack that should have been moved."""
        vault, look = self._vault(), self._look(needed)
        for place, pack in enumerate(look.packs):
            trailer = vault.shelf.open(pack).trailer
            live = look.live[place]
            dead = dead_frames(trailer, live)
            if not self.traits.can_punch:
                live_bytes = live_frame_bytes(trailer, ~live)
                assert live_bytes > GC.moved_live_part_max * int(trailer.rows["length"].sum())
                continue
            content = self.memory.get(pack_key(pack))
            for extent in carve(trailer, dead, GC.hole_bytes).extents:
                assert not any(content[extent.offset_bytes : extent.end_bytes]), f"{pack_key(pack)} has dead frames"
            assert not slots_to_split(trailer, live).any(), f"{pack_key(pack)} has frames that are mostly dead"

    def _keys(self) -> KeyRing:
        return KeyRing(hold_keys(self.store, self.unlock, repository=self.id), repository=self.id)

    def _vault(self) -> Vault:
        return Vault(self.store, self._keys(), clock=self._ground.clock, entropy=self._ground.entropy)
