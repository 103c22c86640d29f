"""Gathering blocks: from many packs into one buffer, with few requests, each frame opened once.

A gathering has two rounds. The first puts whole blocks where they belong and finds patches; the second puts the bases
of the patches there, read pack by pack like everything else, and lays the patches' pages over them. Pieces of the work
run wherever ``submit`` runs them, in any order.

Invariant: what is in the buffer at the end was authenticated, has its full length, and was compared with the id that
its pack's trailer names. Whatever is not is an error, or was told to ``lose``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from holdfast.core import BLOCK_BYTES
from holdfast.repository.damage import Damage, PackDamaged
from holdfast.repository.layout import PAGE_BYTES, FrameKind, PackId
from holdfast.repository.packs.pack import OpenPack, PackShelf, Patch, parse_patch
from holdfast.repository.packs.read_plan import FrameRead, Numbers, Request, Want, plan_reads
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.moved import Moves

__all__ = [
    "Gatherer",
    "Lose",
    "PatchRead",
    "Submit",
    "WantedSlots",
    "gather_places",
    "not_the_block",
    "read_patch",
    "read_patches",
]

WantedSlots = Mapping[PackId, tuple[Numbers, Numbers]]
"""By pack: slots, and for each the offset in the buffer where its block goes."""

Lose = Callable[[int, Damage], None]
"""Takes note of a block that cannot be had: its offset in the buffer, and why."""

_NO_BLOCK = ("it holds no block", "a patch builds on it, and it is not DATA")
"""By whether a base is wanted."""

_Lost = dict[int, Damage]
"""What could not be had, by offset in the buffer."""

_End = Callable[[BaseException | None, _Lost], None]
"""Called when a round is over: with what ended it, and with what it could not read."""

Submit = Callable[[Callable[[], None]], object]


class PatchRead(NamedTuple):
    """A patch that was read and waits for its base."""

    place: NodeAddress
    patch: Patch
    wants: Sequence[Want]


class Gatherer:
    """How blocks are gathered: from which packs, by which threads, and what becomes of damage."""

    def __init__(
        self,
        shelf: PackShelf,
        moves: Moves,
        *,
        block_key: bytes,
        submit: Submit | None = None,
        decoding: AbstractContextManager[object] | None = None,
    ) -> None:
        """``submit`` runs a piece of work elsewhere; ``decoding`` is held while a piece works instead of waiting."""
        self.shelf = shelf
        self.moves = moves
        self.block_key = block_key
        self.submit: Submit = _run_here if submit is None else submit
        self.decoding: AbstractContextManager[object] = nullcontext() if decoding is None else decoding

    def gather(self, out: memoryview, wanted: WantedSlots, *, lose: Lose | None = None) -> Future[None]:
        """Return what is done when every wanted block is in ``out``, or to the error that ended it.

        Damage is such an error, that of the first block concerned; with ``lose`` it is told there instead.
        """
        done: Future[None] = Future()
        patches: list[PatchRead] = []

        def end(failure: BaseException | None, lost: _Lost) -> None:
            if failure is None and patches:
                self._patch(out, patches, lost, lose, done)
            else:
                _settle(done, failure, lost, lose)

        self._read(out, wanted, patches, end, may_repeat=True)
        return done

    def gather_patched(self, out: memoryview, patches: Sequence[PatchRead], *, lose: Lose) -> Future[None]:
        """Return what is done when ``out`` holds the blocks that these patches make of their bases."""
        done: Future[None] = Future()
        self._patch(out, patches, {}, lose, done)
        return done

    def _patch(
        self, out: memoryview, patches: Sequence[PatchRead], lost: _Lost, lose: Lose | None, done: Future[None]
    ) -> None:
        """Put the bases where the patched blocks belong, and make those of them."""
        bases = [NodeAddress(each.patch.base_pack, each.patch.base_slot) for each in patches]
        tokens = [each.wants[0].token for each in patches]

        def end(failure: BaseException | None, lost_bases: _Lost) -> None:
            try:
                for patched in patches if failure is None else ():
                    damage = lost_bases.get(patched.wants[0].token) or self._lay_over(out, patched)
                    if damage is not None:
                        lost.update((want.token, damage) for want in patched.wants)
            except BaseException as mistake:
                failure = mistake
            _settle(done, failure, lost, lose)

        # Depth is one: a base is a whole block, so that this round collects no patches.
        self._read(out, gather_places(bases, tokens), None, end, may_repeat=True)

    def _read(
        self, out: memoryview, wanted: WantedSlots, patches: list[PatchRead] | None, end: _End, *, may_repeat: bool
    ) -> None:
        """Read the wanted slots where they lie now; once more when that turns out to have changed meanwhile."""

        def ended(failure: BaseException | None, lost: _Lost) -> None:
            try:
                repeat = failure is None and bool(lost) and may_repeat and self.moves.reload()
            except BaseException as cause:
                end(cause, lost)
                return
            if repeat:
                self._read(out, _only(wanted, lost), patches, end, may_repeat=False)
            else:
                end(failure, lost)

        try:
            resolved = self._resolved(wanted)
        except BaseException as cause:
            end(cause, {})
            return
        _Round(self, out, patches, ended).start(resolved)

    def _lay_over(self, out: memoryview, patched: PatchRead) -> Damage | None:
        """Make a patch's block of its base, which lies where the block belongs; return what is wrong with it."""
        first, *others = patched.wants
        block = out[first.token : first.token + BLOCK_BYTES]
        pages = np.frombuffer(block, dtype=np.uint8).reshape(-1, PAGE_BYTES)
        bitmap = patched.patch.bitmap.to_bytes(-(-len(pages) // 8), "little")
        is_new = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8), bitorder="little")[: len(pages)].astype(np.bool_)
        pages[is_new] = np.frombuffer(patched.patch.pages, dtype=np.uint8).reshape(-1, PAGE_BYTES)
        if blake3(block, key=self.block_key).digest() != first.id:
            return not_the_block(patched.place.pack, patched.place.slot)
        for other in others:
            out[other.token : other.token + BLOCK_BYTES] = block
        return None

    def _resolved(self, wanted: WantedSlots) -> WantedSlots:
        """Return where the wanted slots lie now."""
        if not len(self.moves):
            return wanted
        found: dict[PackId, list[tuple[Numbers, Numbers]]] = {}
        for pack, (slots, tokens) in wanted.items():
            for group in self.moves.resolve_slots(pack, slots):
                found.setdefault(group.pack, []).append((group.slots, tokens[group.at]))
        return {
            pack: (np.concatenate([each[0] for each in parts]), np.concatenate([each[1] for each in parts]))
            for pack, parts in found.items()
        }


class _Round:
    """One round: pieces of work that are counted, so that the last one to end knows it."""

    def __init__(
        self,
        gatherer: Gatherer,
        out: memoryview,
        patches: list[PatchRead] | None,
        end: _End,
    ) -> None:
        self._gatherer = gatherer
        self._out = out
        self._lost: _Lost = {}
        self._patches = patches
        self._end = end
        self._lock = threading.Lock()
        # The start is a piece itself, so that the round cannot end before all of it has begun.
        self._pieces = 1
        self._failure: BaseException | None = None

    def start(self, wanted: WantedSlots) -> None:
        """Begin to read what is wanted."""
        for pack, (slots, tokens) in wanted.items():
            self._spawn(partial(self._open, pack, slots, tokens))
        self._end_piece()

    def _spawn(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._pieces += 1
        try:
            self._gatherer.submit(partial(self._run, work))
        except RuntimeError as stopped:
            # The threads were stopped: nobody waits for this round any more.
            self._failure = self._failure or stopped
            self._end_piece()

    def _run(self, work: Callable[[], None]) -> None:
        if self._failure is None:
            try:
                work()
            except BaseException as failure:
                self._failure = self._failure or failure
        self._end_piece()

    def _end_piece(self) -> None:
        with self._lock:
            self._pieces -= 1
            if self._pieces:
                return
        self._end(self._failure, self._lost)

    def _open(self, pack: PackId, slots: Numbers, tokens: Numbers) -> None:
        try:
            opened = self._gatherer.shelf.open(pack)
        except Damage as damage:
            for token in tokens.tolist():
                self._lost[token] = damage
            return
        exists = slots < len(opened.trailer)
        for slot, token in zip(slots[~exists].tolist(), tokens[~exists].tolist(), strict=True):
            self._lost[token] = PackDamaged(pack=pack, slot=slot, reason="it has no such slot")
        for request in plan_reads(opened.trailer, slots[exists], tokens[exists]):
            self._spawn(partial(self._read, opened, request))

    def _read(self, opened: OpenPack, request: Request) -> None:
        try:
            sealed = opened.read_range(request.offset_bytes, request.length_bytes)
        except PackDamaged as damage:
            self._read_apart(opened, request, damage)
            return
        except Damage as damage:
            self._lose_frames(request.frames, damage)
            return
        with self._gatherer.decoding:
            for frame in request.frames:
                start = frame.offset_bytes - request.offset_bytes
                self._take(opened, frame, sealed[start : start + frame.length_bytes])

    def _read_apart(self, opened: OpenPack, request: Request, damage: PackDamaged) -> None:
        """Read frame by frame what could not be read at once: the pack may have lost its end only."""
        if len(request.frames) == 1:
            self._lose_frames(request.frames, damage)
            return
        for frame in request.frames:
            self._read(opened, Request(frame.offset_bytes, frame.length_bytes, [frame]))

    def _take(self, opened: OpenPack, frame: FrameRead, sealed: memoryview) -> None:
        try:
            if frame.kind == FrameKind.PATCH and self._patches is not None:
                self._patches.append(read_patch(opened, frame, sealed))
                return
            if frame.kind != FrameKind.DATA:
                raise PackDamaged(pack=opened.pack, slot=frame.slot, reason=_NO_BLOCK[self._patches is None])
            blocks = opened.open_blocks(frame, sealed)
        except Damage as damage:
            self._lose_frames([frame], damage)
            return
        for want in frame.wants:
            block = blocks[want.part]
            if blake3(block, key=self._gatherer.block_key).digest() == want.id:
                self._out[want.token : want.token + BLOCK_BYTES] = block
            else:
                self._lost[want.token] = not_the_block(opened.pack, frame.slot + want.part)

    def _lose_frames(self, frames: Iterable[FrameRead], damage: Damage) -> None:
        for frame in frames:
            for want in frame.wants:
                self._lost[want.token] = damage


def read_patches(opened: OpenPack, slots: Numbers) -> Iterator[PatchRead | Damage]:
    """Yield the patches in these slots of one pack, read with few requests; the damage where one cannot be read."""
    for request in plan_reads(opened.trailer, slots, slots):
        try:
            sealed = opened.read_range(request.offset_bytes, request.length_bytes)
        except Damage as damage:
            yield damage
            continue
        for frame in request.frames:
            start = frame.offset_bytes - request.offset_bytes
            try:
                yield read_patch(opened, frame, sealed[start : start + frame.length_bytes])
            except Damage as damage:
                yield damage


def read_patch(opened: OpenPack, frame: FrameRead, sealed: memoryview) -> PatchRead:
    """Return the patch in a frame. ``PackDamaged``."""
    patch = parse_patch(opened.open_frame(frame, sealed), pack=opened.pack, slot=frame.slot)
    return PatchRead(NodeAddress(opened.pack, frame.slot), patch, frame.wants)


def gather_places(places: Sequence[NodeAddress], tokens: Sequence[int]) -> WantedSlots:
    """Return places pack by pack."""
    by_pack: dict[PackId, tuple[list[int], list[int]]] = {}
    for place, token in zip(places, tokens, strict=True):
        slots, offsets = by_pack.setdefault(place.pack, ([], []))
        slots.append(place.slot)
        offsets.append(token)
    return {
        pack: (np.array(slots, dtype=np.int64), np.array(offsets, dtype=np.int64))
        for pack, (slots, offsets) in by_pack.items()
    }


def not_the_block(pack: PackId, slot: int) -> PackDamaged:
    """Return the damage of a block that decodes but is another one."""
    return PackDamaged(pack=pack, slot=slot, reason="it is not the block that its trailer names")


def _only(wanted: WantedSlots, lost: _Lost) -> WantedSlots:
    """Return those of the wanted slots that were lost."""
    tokens_lost = np.fromiter(lost, dtype=np.int64, count=len(lost))
    kept = {pack: (slots, tokens, np.isin(tokens, tokens_lost)) for pack, (slots, tokens) in wanted.items()}
    return {pack: (slots[mask], tokens[mask]) for pack, (slots, tokens, mask) in kept.items() if mask.any()}


def _settle(done: Future[None], failure: BaseException | None, lost: _Lost, lose: Lose | None) -> None:
    """End a gathering."""
    if failure is None and lost and lose is None:
        failure = lost[min(lost)]
    if failure is not None:
        done.set_exception(failure)
        return
    for token, damage in lost.items():
        assert lose is not None
        lose(token, damage)
    done.set_result(None)


def _run_here(work: Callable[[], None]) -> None:
    work()
