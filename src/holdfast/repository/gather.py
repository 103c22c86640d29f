"""Gathering blocks: from many packs into one buffer, with few requests, each frame opened once.

A gathering has two rounds. The first puts whole blocks where they belong and finds patches; the second puts the bases
of the patches there, read pack by pack like everything else, and lays the patches' pages over them. Pieces of the work
run wherever ``submit`` runs them, in any order.

Invariant: what is in the buffer at the end was authenticated, has its full length, and was compared with the id that
its pack's trailer names. Whatever is not is an error, or was told to ``lose``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from holdfast.core import BLOCK_BYTES
from holdfast.repository.damage import Damage, PackDamaged
from holdfast.repository.layout import PAGE_BYTES, FrameKind, PackId
from holdfast.repository.moved import Moves
from holdfast.repository.pack import OpenPack, PackShelf, Patch, parse_patch
from holdfast.repository.read_plan import FrameRead, Numbers, Request, Want, plan_reads
from holdfast.repository.stored_disk import NodeAddress

__all__ = ["Gatherer", "Lose", "PatchRead", "Submit", "WantedSlots", "gather_places", "not_the_block"]

WantedSlots = Mapping[PackId, tuple[Numbers, Numbers]]
"""By pack: slots, and for each the offset in the buffer where its block goes."""

Lose = Callable[[int, Damage], None]
"""Takes note of a block that cannot be had: its offset in the buffer, and why. Called from any thread."""

_NO_BLOCK = ("it holds no block", "a patch builds on it, and it is not DATA")
"""By whether a base is wanted."""

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
        """Return what is done when every wanted block is in ``out``, or to the error that ended it."""
        done: Future[None] = Future()
        patches: list[PatchRead] = []

        def end(failure: BaseException | None) -> None:
            if failure is not None or not patches:
                _settle(done, failure)
            else:
                self._patch(out, patches, lose or _raise_damage, done)

        _Round(self, out, lose or _raise_damage, patches, end).start(self._resolved(wanted))
        return done

    def gather_patched(self, out: memoryview, patches: Sequence[PatchRead], *, lose: Lose) -> Future[None]:
        """Return what is done when ``out`` holds the blocks that these patches make of their bases."""
        done: Future[None] = Future()
        self._patch(out, patches, lose, done)
        return done

    def _patch(self, out: memoryview, patches: Sequence[PatchRead], lose: Lose, done: Future[None]) -> None:
        waiting = {patched.wants[0].token: patched for patched in patches}

        def lose_patch(token: int, damage: Damage) -> None:
            for want in waiting.pop(token).wants:
                lose(want.token, damage)

        def end(failure: BaseException | None) -> None:
            try:
                for patched in waiting.values() if failure is None else ():
                    self._lay_over(out, patched, lose)
            except BaseException as damage:
                failure = damage
            _settle(done, failure)

        places = [
            self.moves.resolve(NodeAddress(patched.patch.base_pack, patched.patch.base_slot))
            for patched in waiting.values()
        ]
        # Depth is one: a base is a whole block, so that this round finds no patches.
        _Round(self, out, lose_patch, None, end).start(gather_places(places, list(waiting)))

    def _lay_over(self, out: memoryview, patched: PatchRead, lose: Lose) -> None:
        """Make a patch's block of its base, which lies where the block belongs."""
        first, *others = patched.wants
        block = out[first.token : first.token + BLOCK_BYTES]
        at = 0
        for page in range(BLOCK_BYTES // PAGE_BYTES):
            if patched.patch.bitmap >> page & 1:
                block[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = patched.patch.pages[at : at + PAGE_BYTES]
                at += PAGE_BYTES
        if blake3(block, key=self.block_key).digest() != first.id:
            damage = not_the_block(patched.place.pack, patched.place.slot)
            for want in patched.wants:
                lose(want.token, damage)
            return
        for other in others:
            out[other.token : other.token + BLOCK_BYTES] = block

    def _resolved(self, wanted: WantedSlots) -> WantedSlots:
        """Return where the wanted slots lie now."""
        if not len(self.moves):
            return wanted
        places, tokens = [], []
        for pack, (slots, offsets) in wanted.items():
            places += [self.moves.resolve(NodeAddress(pack, slot)) for slot in slots.tolist()]
            tokens += offsets.tolist()
        return gather_places(places, tokens)


class _Round:
    """One round: pieces of work that are counted, so that the last one to end knows it."""

    def __init__(
        self,
        gatherer: Gatherer,
        out: memoryview,
        lose: Lose,
        patches: list[PatchRead] | None,
        end: Callable[[BaseException | None], None],
    ) -> None:
        self._gatherer = gatherer
        self._out = out
        self._lose = lose
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
        self._end(self._failure)

    def _open(self, pack: PackId, slots: Numbers, tokens: Numbers) -> None:
        try:
            opened = self._gatherer.shelf.open(pack)
        except Damage as damage:
            for token in tokens.tolist():
                self._lose(token, damage)
            return
        exists = slots < len(opened.trailer)
        for slot, token in zip(slots[~exists].tolist(), tokens[~exists].tolist(), strict=True):
            self._lose(token, PackDamaged(pack=pack, slot=slot, reason="it has no such slot"))
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
            plain = opened.open_frame(frame, sealed)
            if frame.kind == FrameKind.PATCH and self._patches is not None:
                patch = parse_patch(plain, pack=opened.pack, slot=frame.slot)
                self._patches.append(PatchRead(NodeAddress(opened.pack, frame.slot), patch, frame.wants))
                return
            if frame.kind != FrameKind.DATA:
                raise PackDamaged(pack=opened.pack, slot=frame.slot, reason=_NO_BLOCK[self._patches is None])
        except Damage as damage:
            self._lose_frames([frame], damage)
            return
        view = memoryview(plain)
        for want in frame.wants:
            block = view[want.part * BLOCK_BYTES : (want.part + 1) * BLOCK_BYTES]
            if blake3(block, key=self._gatherer.block_key).digest() == want.id:
                self._out[want.token : want.token + BLOCK_BYTES] = block
            else:
                self._lose(want.token, not_the_block(opened.pack, frame.slot + want.part))

    def _lose_frames(self, frames: Iterable[FrameRead], damage: Damage) -> None:
        for frame in frames:
            for want in frame.wants:
                self._lose(want.token, damage)


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


def _settle(done: Future[None], failure: BaseException | None) -> None:
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)


def _run_here(work: Callable[[], None]) -> None:
    work()


def _raise_damage(_: int, damage: Damage) -> None:
    raise damage
