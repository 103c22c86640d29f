"""Moving frames out of poor packs: copied as they are into new packs, then told in one moved record.

A frame is opened and sealed anew for its new place, and stays compressed as it is. The collector that does this is a
writer with a lease. Invariant: a pack is called emptied only when every slot of it either has a row or was proven dead
while a plan of holes named it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from holdfast.core import Cancellation, get_log
from holdfast.repository.damage import Damage
from holdfast.repository.layout import MOVED_ROW, Encoding, FrameKind, PackId
from holdfast.repository.packs.entries import PackNumbers, place_of
from holdfast.repository.packs.frame import Frame
from holdfast.repository.packs.index import IndexedPack, write_index
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.packs.pack_memory import PackMemory
from holdfast.repository.packs.pack_writer import PackDock, PackStream
from holdfast.repository.packs.spans import spans_of
from holdfast.repository.packs.trailer import TrailerNotes
from holdfast.repository.records.moved import Rows, write_moves
from holdfast.repository.safety import Safety, Since
from holdfast.repository.space.gc_tidy import collector_lease
from holdfast.repository.vault import Vault
from holdfast.repository.writing.lease_keeper import LeaseKeeper
from holdfast.repository.writing.session import SEGMENTS_MAX

__all__ = ["MoveJob", "MovedFrames", "move_frames"]

_log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class MoveJob:
    """A pack to be emptied, the slots that have to be kept (whole frames), and how long their frames are."""

    pack: PackId
    keep: npt.NDArray[np.bool_]
    length_bytes: int


@dataclass(slots=True)
class MovedFrames:
    """What was moved."""

    emptied: list[PackId] = field(default_factory=list)
    copied_bytes: int = 0


def move_frames(
    vault: Vault,
    jobs: Sequence[MoveJob],
    *,
    safety: Safety,
    pack_bytes_max: int,
    began: Since,
    workers: int,
    cancel: Cancellation,
) -> MovedFrames:
    """Copy what is kept of some packs and publish where it is now.

    Nothing is published when the plan of holes, which ``began`` before it was stored, may not be respected any more.
    A pack that cannot be read is left as it is. Interrupted, it leaves copies that nobody refers to.
    """
    keeper = collector_lease(vault, safety=safety)
    written: list[IndexedPack] = []
    numbers = PackNumbers()
    rows: list[Rows] = []
    moved = MovedFrames()
    with contextlib.ExitStack() as stack:
        putter = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="holdfast-move")) if workers else None
        dock = _dock(vault, keeper, numbers, written, putter=putter, bytes_max=pack_bytes_max, cancel=cancel)
        stream = dock.open_stream()
        try:
            for job in jobs:
                cancel.check()
                keeper.renew_if_due()
                try:
                    rows.append(_copy(vault, job, stream, numbers))
                except Damage as damage:
                    # Verification reports it; what was copied of the pack already is nobody's.
                    _log.warning("collection.pack-not-moved", reason=str(damage))
                    continue
                moved.emptied.append(job.pack)
                moved.copied_bytes += job.length_bytes
            stream.close()
        except BaseException:
            stream.abort()
            raise
    if moved.emptied and began.age_s() <= safety.collection_s:
        keeper.check()
        write_moves(vault, np.concatenate(rows), emptied=moved.emptied)
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


def _copy(vault: Vault, job: MoveJob, stream: PackStream, numbers: PackNumbers) -> Rows:
    """Return the rows of one pack; its frames are on their way into new packs."""
    opened = vault.shelf.open(job.pack)
    found: list[tuple[int, int]] = []
    kept = np.flatnonzero(job.keep & (opened.trailer.rows["index"] == 0)).tolist()
    for span in spans_of(opened, kept):
        sealed = opened.read_range(span.offset_bytes, span.length_bytes)
        frames = []
        slots: list[int] = []
        for slot, content in span.frames(opened, sealed):
            frame = _frame(opened, slot, content)
            frames.append(frame)
            slots += range(slot, slot + len(frame.ids))
        found += zip(slots, stream.store(frames), strict=True)
    rows: Rows = np.zeros(len(found), dtype=MOVED_ROW)
    rows["old_pack"] = np.void(job.pack)
    for row, (slot, entry) in zip(rows, found, strict=True):
        number, new_slot = place_of(entry)
        row["old_slot"], row["new_slot"] = slot, new_slot
        row["new_pack"] = np.void(numbers.pack(number))
    return rows


def _frame(opened: OpenPack, slot: int, sealed: memoryview) -> Frame:
    row = opened.trailer.rows[slot]
    ids = tuple(opened.trailer.id_of(each) for each in range(slot, slot + int(row["count"])))
    return Frame(ids, FrameKind(int(row["kind"])), Encoding(int(row["encoding"])), opened.unseal(slot, sealed))
