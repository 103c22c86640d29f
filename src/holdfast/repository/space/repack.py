"""Moving what is needed out of poor packs: copied into new packs, then told in one moved record.

A frame that is kept whole is opened and sealed anew for its new place, and stays compressed as it is; of others the
blocks that are kept make a new frame. The collector that does this is a writer with a lease. Invariant: a pack is
called emptied only when every slot of it either has a row or was proven dead while a plan of holes named it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from holdfast.core import Cancellation, get_log
from holdfast.repository.damage import Damage
from holdfast.repository.layout import MOVED_ROW, Encoding, FrameKind, PackId
from holdfast.repository.packs.entries import PackNumbers, place_of
from holdfast.repository.packs.frame import Compressor, Frame
from holdfast.repository.packs.index import IndexedPack, write_index
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.packs.pack_memory import PackMemory
from holdfast.repository.packs.pack_writer import PackDock, PackStream
from holdfast.repository.packs.spans import spans_of
from holdfast.repository.packs.trailer import TrailerNotes
from holdfast.repository.packs.unpack import unpack_blocks
from holdfast.repository.reading.gather import not_the_block
from holdfast.repository.records.moved import Rows
from holdfast.repository.safety import Safety, Since
from holdfast.repository.space.gc_settings import GcSettings
from holdfast.repository.space.gc_tidy import collector_lease
from holdfast.repository.vault import Vault
from holdfast.repository.writing.lease_keeper import LeaseKeeper
from holdfast.repository.writing.moving import publish_moves
from holdfast.repository.writing.session import SEGMENTS_MAX
from holdfast.storage import StoreFull

__all__ = ["MoveJob", "MovedFrames", "move_frames"]

_log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class MoveJob:
    """Slots of a pack that are to be copied."""

    pack: PackId
    keep: npt.NDArray[np.bool_]
    length_bytes: int
    """About what that takes."""
    is_emptied: bool
    """Whether nothing else of the pack is needed."""


@dataclass(slots=True)
class MovedFrames:
    """What was moved."""

    emptied: list[PackId] = field(default_factory=list)
    rows: Rows = field(default_factory=lambda: np.zeros(0, dtype=MOVED_ROW))
    copied_bytes: int = 0


def move_frames(
    vault: Vault, jobs: Sequence[MoveJob], *, safety: Safety, settings: GcSettings, began: Since, cancel: Cancellation
) -> MovedFrames:
    """Copy what is kept of some packs and publish where it is now.

    Nothing is published by what ``began`` too long ago. A pack that cannot be read is left as it is. Interrupted, it
    leaves copies that nobody refers to. ``StoreFull``.
    """
    keeper = collector_lease(vault, safety=safety)
    try:
        return _move(vault, jobs, keeper, safety=safety, settings=settings, began=began, cancel=cancel)
    except StoreFull:
        # Without the lease the next collection takes the copies away at once.
        keeper.end()
        raise


def _move(
    vault: Vault,
    jobs: Sequence[MoveJob],
    keeper: LeaseKeeper,
    *,
    safety: Safety,
    settings: GcSettings,
    began: Since,
    cancel: Cancellation,
) -> MovedFrames:
    written: list[IndexedPack] = []
    numbers = PackNumbers()
    rows: list[Rows] = []
    moved = MovedFrames()
    workers = settings.workers
    with contextlib.ExitStack() as stack:
        putter = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="holdfast-move")) if workers else None
        bytes_max = settings.pack_bytes_max
        dock = _dock(vault, keeper, numbers, written, putter=putter, bytes_max=bytes_max, cancel=cancel)
        copier = _Copier(vault, dock.open_stream(), numbers, Compressor(level=settings.level))
        try:
            for job in jobs:
                cancel.check()
                keeper.renew_if_due()
                try:
                    rows.append(copier.copy(job))
                except Damage as damage:
                    # Verification reports it; what was copied of the pack already is nobody's.
                    _log.warning("collection.pack-not-moved", reason=str(damage))
                    continue
                if job.is_emptied:
                    moved.emptied.append(job.pack)
            copier.stream.close()
        except BaseException:
            copier.stream.abort()
            raise
    moved.rows = np.concatenate([moved.rows, *rows])
    if (moved.emptied or len(moved.rows)) and began.age_s() <= safety.collection_s:
        publish_moves(vault, moved.rows, emptied=moved.emptied, check_before=keeper.check)
        moved.copied_bytes = copier.copied_bytes
        if written:
            write_index(vault, written)
    else:
        moved = MovedFrames()
    keeper.end()
    return moved


def _dock(
    vault: Vault,
    keeper: LeaseKeeper,
    numbers: PackNumbers,
    written: list[IndexedPack],
    *,
    putter: Executor | None,
    bytes_max: int,
    cancel: Cancellation,
) -> PackDock:
    """Return where the new packs are filled; each is added to ``written`` once it is durable."""

    return PackDock(
        vault.store,
        vault.keys,
        memory=PackMemory(segments_max=SEGMENTS_MAX),
        numbers=numbers,
        notes=TrailerNotes(run=keeper.run),
        next_pack=keeper.next_pack,
        lock_until=vault.locked_until_if_new,
        on_durable=lambda pack: written.append(pack.indexed()),
        putter=putter,
        bytes_max=bytes_max,
        cancel=cancel,
    )


class _Copier:
    """Copies slots into a stream of new packs."""

    def __init__(self, vault: Vault, stream: PackStream, numbers: PackNumbers, compressor: Compressor) -> None:
        self._vault = vault
        self.stream = stream
        self._numbers = numbers
        self._compressor = compressor
        self.copied_bytes = 0

    def copy(self, job: MoveJob) -> Rows:
        """Return the rows of one pack; what is kept of it is on its way into new packs. ``Damage``."""
        opened = self._vault.shelf.open(job.pack)
        leaders = np.arange(len(job.keep)) - opened.trailer.rows["index"]
        found: list[tuple[int, int]] = []
        for span in spans_of(opened, np.unique(leaders[job.keep]).tolist()):
            sealed = opened.read_range(span.offset_bytes, span.length_bytes)
            frames = []
            slots: list[int] = []
            for slot, content in span.frames(opened, sealed):
                count = int(opened.trailer.rows["count"][slot])
                kept = [each for each in range(slot, slot + count) if job.keep[each]]
                frames.append(self._frame(opened, slot, kept, content))
                slots += kept
            self.copied_bytes += sum(frame.sealed_bytes for frame in frames)
            found += zip(slots, self.stream.store(frames), strict=True)
        rows: Rows = np.zeros(len(found), dtype=MOVED_ROW)
        rows["old_pack"] = np.void(job.pack)
        for row, (slot, entry) in zip(rows, found, strict=True):
            number, new_slot = place_of(entry)
            row["old_slot"], row["new_slot"] = slot, new_slot
            row["new_pack"] = np.void(self._numbers.pack(number))
        return rows

    def _frame(self, opened: OpenPack, slot: int, kept: Sequence[int], sealed: memoryview) -> Frame:
        """Return the frame that a slot leads, or one of those of its blocks that are kept."""
        row = opened.trailer.rows[slot]
        ids = tuple(opened.trailer.id_of(each) for each in kept)
        kind, encoding, count = FrameKind(int(row["kind"])), Encoding(int(row["encoding"])), int(row["count"])
        body = opened.unseal(slot, sealed)
        if len(kept) == count:
            return Frame(ids, kind, encoding, body)
        parts = [each - slot for each in kept]
        wanted = parts[-1] + 1
        blocks = unpack_blocks(body, pack=opened.pack, slot=slot, encoding=encoding, block_count=count, wanted=wanted)
        for part, id in zip(parts, ids, strict=True):
            if blake3(blocks[part], key=self._vault.keys.block_id_key).digest() != id:
                raise not_the_block(opened.pack, slot + part)
        return self._compressor.frame(b"".join(blocks[part] for part in parts), ids=ids, kind=kind)
