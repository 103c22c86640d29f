"""Writing packs: frames are sealed straight into memory, and a pack is stored with one put when it is full.

All disks of a run share one amount of memory for packs that are open or being stored. When it is used up, the fullest
open pack is closed early, and whoever needs memory waits for the store, never while holding a frame that is half made.

Invariant: a pack's id was announced in the lease before the pack is stored, every slot is sealed once, and a pack is
told as durable only after its put has returned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from holdfast.core import Cancellation, limits
from holdfast.repository.layout import TRAILER_ROW, FrameKind, PackId, pack_key
from holdfast.repository.packs.entries import PATCH_FLAG, PackNumbers, entry_of
from holdfast.repository.packs.frame import Frame, FrameCipher
from holdfast.repository.packs.index import IndexedPack
from holdfast.repository.packs.pack import SealedTrailer
from holdfast.repository.packs.pack_fill import FillingPack
from holdfast.repository.packs.pack_memory import SEGMENT_BYTES, PackMemory
from holdfast.repository.packs.trailer import TrailerNotes
from holdfast.repository.sealing import KeyRing
from holdfast.storage import ObjectStore, Part

__all__ = ["DurablePack", "PackDock", "PackStream"]

_WAIT_S = 0.5
"""How often a wait for memory looks whether someone asked to stop."""


@dataclass(frozen=True, slots=True)
class DurablePack:
    """A pack that has just become durable."""

    pack: PackId
    number: int
    length_bytes: int
    rows: bytes
    sealed_trailer: bytes
    epoch: int
    locked_until: datetime | None
    """The lock that it was stored with."""

    def indexed(self) -> IndexedPack:
        """Return it as an index lists it."""
        sealed = SealedTrailer(self.pack, self.length_bytes, self.sealed_trailer, self.epoch)
        return IndexedPack(sealed, np.frombuffer(self.rows, dtype=TRAILER_ROW))


@dataclass(frozen=True, slots=True)
class _Placed:
    """A frame, where it is to be sealed, and the entries of its blocks."""

    frame: Frame
    slot: int
    room: memoryview
    entries: list[int]


class StreamAborted(Exception):
    """A task came too late: its disk was given up. Nobody waits for that task any more."""


class PackStream:
    """The packs of one disk. ``store`` may be called from several threads; the rest from one."""

    def __init__(self, dock: PackDock) -> None:
        self._dock = dock
        self.filling: FillingPack | None = None
        self.in_flight = 0
        self.failure: BaseException | None = None
        self.is_aborted = False
        self.stored_bytes = 0
        self.fresh: dict[bytes, int] = {}

    def store(self, frames: Sequence[Frame]) -> list[int]:
        """Return an entry for each block of the frames, in their order. They are durable only after ``close``."""
        entries: list[int] = []
        done = 0
        while done < len(frames):
            pack, placed = self._dock.place(self, frames[done:])
            try:
                for each in placed:
                    pack.cipher.seal_into(each.frame, each.slot, each.room)
            finally:
                self._dock.sealed(self, pack, len(placed))
            for each in placed:
                entries += each.entries
            done += len(placed)
        return entries

    def find(self, ids: Sequence[bytes]) -> list[int | None]:
        """Return for each block id where this stream has stored the whole block, in a pack not durable yet; or None."""
        with self._dock.changed:
            return [self.fresh.get(id) for id in ids]

    def close(self) -> None:
        """Return when everything is durable; raise what went wrong with any of it."""
        self._dock.close_stream(self)

    def abort(self) -> None:
        """Throw away what is not on its way to the store. Safe to call twice."""
        self._dock.abort_stream(self)


class PackDock:
    """Where the packs of one run are filled and stored. Thread-safe.

    ``putter`` stores packs in the background; None stores them at once, in the calling thread.
    """

    def __init__(
        self,
        store: ObjectStore,
        keys: KeyRing,
        *,
        memory: PackMemory,
        numbers: PackNumbers,
        notes: TrailerNotes,
        next_pack: Callable[[], PackId],
        lock_until: Callable[[], datetime | None] = lambda: None,
        on_durable: Callable[[DurablePack], None],
        putter: Executor | None,
        bytes_max: int,
        cancel: Cancellation,
    ) -> None:
        self.changed = threading.Condition()
        self._store = store
        self._keys = keys
        self._memory = memory
        self._numbers = numbers
        self._notes = notes
        self._next_pack = next_pack
        self._lock_until = lock_until
        self._on_durable = on_durable
        self._putter = putter
        self._bytes_max = bytes_max
        self._cancel = cancel
        self._streams: list[PackStream] = []

    def open_stream(self) -> PackStream:
        """Return a new stream of packs."""
        stream = PackStream(self)
        with self.changed:
            self._streams.append(stream)
        return stream

    def place(self, stream: PackStream, frames: Sequence[Frame]) -> tuple[FillingPack, list[_Placed]]:
        """Return places for at least the first of the frames, all in one pack; waits for memory when there is none."""
        with self.changed:
            while True:
                self._check(stream)
                pack, placed = self._try_place(stream, frames)
                if placed:
                    return pack, placed
                if not self._relieve(stream):
                    self.changed.wait(_WAIT_S)

    def sealed(self, stream: PackStream, pack: FillingPack, count: int) -> None:
        """Note that ``count`` places of a pack have been sealed."""
        with self.changed:
            pack.unsealed -= count
            if pack.unsealed == 0 and pack.is_closed:
                self._send(stream, pack)

    def close_stream(self, stream: PackStream) -> None:
        """See ``PackStream.close``."""
        with self.changed:
            self._close_pack(stream)
            while stream.in_flight and stream.failure is None:
                self.changed.wait(_WAIT_S)
                self._cancel.check()
            self._check(stream)
            self._streams.remove(stream)

    def abort_stream(self, stream: PackStream) -> None:
        """See ``PackStream.abort``."""
        with self.changed:
            stream.is_aborted = True
            self._close_pack(stream)
            if stream in self._streams:
                self._streams.remove(stream)

    def _check(self, stream: PackStream) -> None:
        self._cancel.check()
        if stream.failure is not None:
            raise stream.failure
        if stream.is_aborted:
            raise StreamAborted

    def _try_place(self, stream: PackStream, frames: Sequence[Frame]) -> tuple[FillingPack, list[_Placed]]:
        pack = stream.filling or self._open_pack(stream)
        if not pack.has_room(frames[0]):
            self._close_pack(stream)
            pack = self._open_pack(stream)
        placed: list[_Placed] = []
        for frame in frames:
            if not pack.has_room(frame):
                break
            if pack.needs_segment(frame):
                segment = None if self._has_its_share(pack) else self._memory.try_take()
                if segment is None:
                    break
                pack.segments.append(segment)
            slot, room = pack.place(frame)
            each = _Placed(frame, slot, room, _entries_of(frame, pack.number, slot))
            placed.append(each)
            if frame.kind is FrameKind.DATA:
                stream.fresh.update(zip(frame.ids, each.entries, strict=True))
        return pack, placed

    def _open_pack(self, stream: PackStream) -> FillingPack:
        id = self._next_pack()
        number = self._numbers.number(id)
        stream.filling = FillingPack(FrameCipher(self._keys, id), number=number, bytes_max=self._bytes_max)
        return stream.filling

    def _has_its_share(self, pack: FillingPack) -> bool:
        """Return whether a pack holds all the memory it may, so that other disks and the store get theirs."""
        filling = sum(1 for each in self._streams if each.filling is not None)
        spare = self._memory.segments_max // 3
        share = max(1, (self._memory.segments_max - spare) // max(1, filling))
        return len(pack.segments) >= min(share, limits.PACK_BYTES_MAX // SEGMENT_BYTES)

    def _relieve(self, stream: PackStream) -> bool:
        """Send a pack to the store so that memory comes back; False when some is on its way already."""
        if any(each.in_flight for each in self._streams):
            return False
        closable = [each for each in self._streams if each.filling is not None and each.filling.slots]
        if not closable:
            return False
        own = [stream] if stream in closable else closable
        self._close_pack(max(own, key=lambda each: len(each.filling.segments) if each.filling else 0))
        return True

    def _close_pack(self, stream: PackStream) -> None:
        pack, stream.filling = stream.filling, None
        if pack is None or pack.slots == 0:
            return
        pack.is_closed = True
        stream.in_flight += 1
        if pack.unsealed == 0:
            self._send(stream, pack)

    def _send(self, stream: PackStream, pack: FillingPack) -> None:
        if stream.is_aborted:
            self._settle(stream, pack)
        elif self._putter is None:
            self._store_pack(stream, pack)
            if stream.failure is not None:
                raise stream.failure
        else:
            self._putter.submit(self._store_pack, stream, pack)

    def _store_pack(self, stream: PackStream, pack: FillingPack) -> None:
        """Store one pack; what goes wrong is kept for whoever uses the stream next."""
        try:
            parts, rows, trailer = pack.finish(self._notes)
            length_bytes = sum(len(part) for part in parts)
            content: list[Part] = list(parts)
            locked_until = self._lock_until()
            self._store.put(pack_key(pack.cipher.pack), content, locked_until=locked_until)
            self._numbers.set_length(pack.number, length_bytes)
            pack_id, epoch = pack.cipher.pack, pack.cipher.epoch
            self._on_durable(DurablePack(pack_id, pack.number, length_bytes, rows, trailer, epoch, locked_until))
        except BaseException as failure:
            with self.changed:
                stream.failure = stream.failure or failure
                self._settle(stream, pack)
            return
        with self.changed:
            stream.stored_bytes += length_bytes
            for at in range(0, len(rows), TRAILER_ROW.itemsize):
                stream.fresh.pop(rows[at : at + 32], None)
            self._settle(stream, pack)

    def _settle(self, stream: PackStream, pack: FillingPack) -> None:
        pack.release(self._memory)
        stream.in_flight -= 1
        self.changed.notify_all()


def _entries_of(frame: Frame, number: int, slot: int) -> list[int]:
    """Return the entries of a frame's blocks, its first one in ``slot``."""
    flag = PATCH_FLAG if frame.kind is FrameKind.PATCH else 0
    return [entry_of(number, slot + index, share) | flag for index, share in enumerate(frame.shares)]
