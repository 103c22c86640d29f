"""Scrub: reads packs again within a budget, those that were not read for the longest time first.

What it has read is written down every few packs, so it continues where it was, however it ended; what it finds damaged
is in quarantine before that. Invariant: every pack that a restore point needs is read before any is read twice, and a
pack that is missing is told by every scrub, whatever its budget.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from holdfast.core import Cancellation, Cancelled, Progress
from holdfast.repository import layout
from holdfast.repository.care.hole_check import KnownHoles
from holdfast.repository.care.verify_packs import PackCheck, check_pack
from holdfast.repository.crew import in_order
from holdfast.repository.damage import Damage, PointDamaged
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.reading.slots import read_slot
from holdfast.repository.records.moved import read_moves
from holdfast.repository.records.proofs import ProofWriter, read_proofs
from holdfast.repository.records.quarantine import BrokenSlots, read_quarantine, settle_quarantine
from holdfast.repository.space.gc_census import list_packs
from holdfast.repository.space.needed import PackArray, read_needed
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing, StoreError

__all__ = ["ScrubBudget", "ScrubPass", "ScrubPlan", "ScrubStatus", "plan_scrub", "run_scrub"]

_RECENT_S = 30 * 24 * 60 * 60

_READERS = 6
"""Packs read at once: while one thread decodes, others wait for the store. As many are read again after a kill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubBudget:
    """How much one scrub may do; None for no bound. It always reads one pack, so that every scrub comes forward."""

    read_bytes: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubStatus:
    """How much of what the restore points need was read, and when."""

    packs: int
    length_bytes: int
    """Of all packs that the points need, as far as they are in the store."""
    never_packs: int
    never_bytes: int
    """Of those, packs that were never read."""
    oldest_at: datetime | None
    """When the pack that was not read for the longest time was read; None when some never were, or there are none."""
    recent_bytes: int
    """Packs that were read within the last 30 days."""
    missing_packs: int

    def round_scrubs(self, read_bytes: int) -> int:
        """Return how many scrubs that read so much it takes to read everything once; each reads a pack at least."""
        return min(self.packs, -(-self.length_bytes // max(1, read_bytes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubPlan:
    """What there is to read, in the order in which it is read. Arrays, some 50 bytes for each pack."""

    packs: PackArray
    lengths: npt.NDArray[np.int64]
    checked_s: npt.NDArray[np.int64]
    """When each was read last; 0 for never."""
    missing: tuple[PackId, ...]
    present: PackArray
    """Everything that is in the store, ascending."""
    damaged_points: tuple[PointDamaged, ...]

    def status(self, now: datetime) -> ScrubStatus:
        """Return the figures."""
        never = self.checked_s == 0
        recent = self.checked_s >= now.timestamp() - _RECENT_S
        is_known = len(self.packs) > 0 and not never.any()
        return ScrubStatus(
            packs=len(self.packs),
            length_bytes=int(self.lengths.sum()),
            never_packs=int(never.sum()),
            never_bytes=int(self.lengths[never].sum()),
            oldest_at=datetime.fromtimestamp(int(self.checked_s.min()), tz=UTC) if is_known else None,
            recent_bytes=int(self.lengths[recent & ~never].sum()),
            missing_packs=len(self.missing),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubPass:
    """What one scrub has read, before it is known whom the damage hits."""

    packs: int
    read_bytes: int
    is_round_complete: bool
    """Whether everything was read once since this scrub began."""
    pack_reasons: Mapping[PackId, str]
    """Why packs entered the quarantine as a whole."""
    slot_reasons: Mapping[NodeAddress, str]
    """And single slots."""
    unnoted: BrokenSlots
    """What was found damaged and could not be put in quarantine."""
    not_noted: str
    """Why not everything that was read could be noted; empty when it was."""


def plan_scrub(vault: Vault, *, workers: int, cancel: Cancellation) -> ScrubPlan:
    """Return what there is to read: never read packs first, then those whose last reading is the longest ago."""
    # First, because sorting them takes the most memory.
    proofs = read_proofs(vault)
    listed = list_packs(vault)
    present, lengths = listed.packs.ids.view("V16"), listed.lengths
    # The points are read after the packs were listed: what they need of packs that came later is no loss.
    needed = read_needed(vault, moves=read_moves(vault), workers=workers, cancel=cancel)
    at = np.minimum(np.searchsorted(present, needed.packs), max(0, len(present) - 1))
    is_there = present[at] == needed.packs if len(present) else np.zeros(len(needed.packs), dtype=np.bool_)
    packs, lengths = needed.packs[is_there], lengths[at[is_there]]
    checked_s = proofs.checked_s(packs)
    order = np.argsort(checked_s, kind="stable")
    return ScrubPlan(
        packs=packs[order],
        lengths=lengths[order],
        checked_s=checked_s[order],
        missing=_still_missing(vault, needed.packs[~is_there]),
        present=present,
        damaged_points=needed.damaged_points,
    )


def run_scrub(
    vault: Vault, plan: ScrubPlan, *, budget: ScrubBudget, workers: int, progress: Progress, cancel: Cancellation
) -> ScrubPass:
    """Read packs until the budget is used up or the round is complete, and return what was found.

    Stopped in between, what was read until then is written down, and the next scrub continues.
    """
    scrub = _Scrub(vault, plan, budget, cancel, decoders=workers)
    threads = max(_READERS, workers) if workers else 0
    with progress.start("packs, oldest proof first", total_bytes=scrub.total_bytes) as task:
        try:
            for read in in_order(scrub.read, scrub.chosen(), workers=threads, ahead=threads):
                scrub.take(read)
                task.advance(read.length_bytes)
        except Cancelled:
            scrub.write_down()
            raise
    return scrub.finish()


@dataclass(frozen=True, slots=True)
class _Read:
    """A pack that was read."""

    check: PackCheck
    length_bytes: int
    began_s: int


class _Scrub:
    """A scrub that is going on. ``read`` may run in several threads, everything else in one."""

    def __init__(
        self, vault: Vault, plan: ScrubPlan, budget: ScrubBudget, cancel: Cancellation, *, decoders: int
    ) -> None:
        self._vault = vault
        self._plan = plan
        self._budget = budget
        self._cancel = cancel
        self._decoding = threading.BoundedSemaphore(max(1, decoders))
        self._started_s = vault.clock.monotonic_s()
        self._moves = read_moves(vault)
        self._blocks = BlockReader(vault, moves=self._moves)
        self._holes = KnownHoles(vault)
        self._proofs = ProofWriter(vault)
        self._quarantine = read_quarantine(vault)
        self._unsettled: dict[PackId, BrokenSlots] = {}
        self._checked_s: dict[PackId, int] = {}
        self._read_bytes = 0
        self._reasons: dict[PackId, str] = {}
        self._slot_reasons: dict[NodeAddress, str] = {}
        self._is_round_complete = False
        self._not_noted = ""
        all_bytes = int(plan.lengths.sum())
        self.total_bytes = all_bytes if budget.read_bytes is None else min(all_bytes, budget.read_bytes)

    def chosen(self) -> Iterator[tuple[PackId, int]]:
        """Yield packs and their lengths while the budget lasts: first what may have come back, then the oldest."""
        again = [pack for pack in sorted(self._quarantine.broken) if self._looks_whole(pack)]
        first = ((pack, self._vault.store.size(pack_key(pack))) for pack in again)
        rest = (
            (PackId(bytes(pack)), int(length))
            for pack, length in zip(self._plan.packs, self._plan.lengths, strict=True)
            if bytes(pack) not in again
        )
        begun_bytes = 0
        for pack, length_bytes in itertools.chain(first, rest):
            if self._not_noted or (begun_bytes and not self._has_budget_for(begun_bytes + length_bytes)):
                return
            begun_bytes += length_bytes
            yield pack, length_bytes
        self._is_round_complete = True

    def read(self, chosen: tuple[PackId, int]) -> _Read:
        """Read one pack, every byte of it."""
        pack, length_bytes = chosen
        began_s = int(self._vault.clock.now().timestamp())
        check = check_pack(self._vault, self._blocks, pack, cancel=self._cancel, decoding=self._decoding)
        self._holes.pass_over(check)
        # A pack is read once in a scrub; its trailer only takes the room of others.
        self._vault.shelf.forget(pack)
        return _Read(check, length_bytes, began_s)

    def take(self, read: _Read) -> None:
        """Note what was read; write it down when it is time to."""
        check = read.check
        self._read_bytes += read.length_bytes
        if check.is_missing:
            # Collected since the packs were listed, or lost: that is judged like what was missing from the beginning.
            return
        if check.whole:
            self._reasons[check.pack] = check.whole
        self._slot_reasons.update({NodeAddress(check.pack, slot): why for slot, why in check.slots.items()})
        slots = None if check.whole else frozenset(check.slots)
        self._unsettled[check.pack] = {check.pack: slots} if slots is None or slots else {}
        self._checked_s[check.pack] = read.began_s
        self._proofs.add(check.pack, length_bytes=read.length_bytes, began_s=read.began_s)
        if self._proofs.is_due:
            self.write_down()

    def write_down(self, *, is_last: bool = False) -> None:
        """Store what is known by now. Where the store takes nothing the scrub ends, and tells its damage even so."""
        if self._not_noted:
            return
        try:
            self._store_known()
            if is_last:
                self._proofs.close(present=self._plan.present)
        except StoreError as error:
            if not (self._reasons or self._slot_reasons or self._plan.missing):
                raise
            self._not_noted = str(error)

    def _store_known(self) -> None:
        """Store damage first, so that no proof ever says more than the quarantine."""
        broken = {pack: slots for found in self._unsettled.values() for pack, slots in found.items()}
        if broken or not self._quarantine.broken.keys().isdisjoint(self._unsettled):
            settle_quarantine(
                self._vault, checked=self._unsettled.keys(), broken=broken, harmless=frozenset(), forgotten=frozenset()
            )
        self._unsettled = {}
        self._proofs.store()

    def finish(self) -> ScrubPass:
        """Write down the rest and return what was found."""
        self.write_down(is_last=True)
        return ScrubPass(
            packs=len(self._checked_s),
            read_bytes=self._read_bytes,
            is_round_complete=self._is_round_complete,
            pack_reasons=self._reasons,
            slot_reasons=self._slot_reasons,
            unnoted={pack: slots for found in self._unsettled.values() for pack, slots in found.items()},
            not_noted=self._not_noted,
        )

    def _has_budget_for(self, reach_bytes: int) -> bool:
        bytes_max, duration_s = self._budget.read_bytes, self._budget.duration_s
        if bytes_max is not None and reach_bytes > bytes_max:
            return False
        return duration_s is None or self._vault.clock.monotonic_s() - self._started_s < duration_s

    def _looks_whole(self, pack: PackId) -> bool:
        """Return whether what was damaged in a pack in quarantine reads well now: it was brought back from a copy."""
        slots = self._quarantine.broken[pack]
        self._vault.shelf.forget(pack)
        try:
            opened = self._vault.shelf.open(pack)
            if bytes(opened.read_range(0, layout.PACK_HEADER.size)) != opened.header:
                return False
            for slot in sorted(slots or ()):
                read_slot(self._vault, NodeAddress(pack, slot), moves=self._moves)
        except Damage:
            return False
        return True


def _still_missing(vault: Vault, packs: PackArray) -> tuple[PackId, ...]:
    """Return which of the packs are not in the store: some may have come after the others were listed."""
    missing = []
    for pack in (PackId(each) for each in packs.tolist()):
        try:
            vault.store.size(pack_key(pack))
        except ObjectMissing:
            missing.append(pack)
    return tuple(missing)
