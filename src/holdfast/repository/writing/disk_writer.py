"""One disk being written into a repository: runs in, a stored disk out.

The feeding thread gathers runs into batches and hands those to the crew; workers hash, look up, compress and seal.
Invariant: ``finish`` returns only when every pack and map node that the stored disk refers to is durable.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from functools import partial

import numpy as np

from holdfast.core import BLOCK_BYTES, limits
from holdfast.model import Coverage, DataRun, FourSizes, Run, ZeroRun
from holdfast.repository.damage import Damage
from holdfast.repository.layout import FrameKind
from holdfast.repository.maps.map_builder import MapBuilder
from holdfast.repository.maps.map_reader import MapReader
from holdfast.repository.maps.reference_map import ReferenceMap
from holdfast.repository.maps.slot_book import SlotBook
from holdfast.repository.packs.batch import Batch
from holdfast.repository.packs.disk_map import node_id, write_root
from holdfast.repository.packs.entries import place_of
from holdfast.repository.packs.frame import Frame
from holdfast.repository.packs.pack_tally import PackTally
from holdfast.repository.packs.stored_disk import NodeAddress, StoredDisk
from holdfast.repository.records.avoided import NOTHING_AVOIDED
from holdfast.repository.writing.block_storer import BlockStorer
from holdfast.repository.writing.session import WriteSession

__all__ = ["RepositoryDiskWriter"]

_NODES_HELD_MAX = 64
"""Compressed leaves that wait to be stored together, so that reading a map is few requests; at most 5 MiB."""


class RepositoryDiskWriter:
    """A ``DiskWriter`` into a repository. Fed from one thread."""

    def __init__(
        self, session: WriteSession, *, size_bytes: int, coverage: Coverage, reference: StoredDisk | None
    ) -> None:
        self._session = session
        self._size_bytes = size_bytes
        self._tally = PackTally(session.numbers)
        book = SlotBook(session.vault, session.numbers, moves=session.moves, avoided=session.avoided)
        inherit = coverage is Coverage.CHANGES
        known = None if reference is None else self._open_reference(reference, book, inherit=inherit)
        inherited = known if inherit else None
        self._map = MapBuilder(session.numbers, self._tally, book, size_bytes=size_bytes, inherited=inherited)
        self._stream = session.dock.open_stream()
        self._storer = BlockStorer(session, self._stream, self._map, book=book, reference=known)
        self._batch: Batch | None = None
        self._under_way: deque[tuple[int, Future[None]]] = deque()
        self._nodes: list[tuple[int, Frame]] = []
        self._next_block = 0
        self._read_bytes = 0
        self._is_over = False

    def write(self, run: Run) -> None:
        """See ``DiskWriter.write``."""
        assert not self._is_over
        first_block = run.offset_bytes // BLOCK_BYTES
        assert first_block >= self._next_block
        assert run.offset_bytes + run.length_bytes <= self._size_bytes
        self._session.cancel.check()
        self._session.keeper.renew_if_due()
        with self._session.keeper.blamed():
            self._settle(first_block)
            self._next_block = first_block + -(-run.length_bytes // BLOCK_BYTES)
            match run:
                case ZeroRun():
                    self._map.put_zeros(first_block, self._next_block - first_block)
                case DataRun():
                    self._add(first_block, run)

    def finish(self) -> StoredDisk:
        """Return the stored disk once all of it is durable; raise what went wrong with any of it."""
        assert not self._is_over
        with self._session.keeper.blamed():
            id, entry = self._store_map()
            self._session.keeper.renew_if_due()
            self._stream.close()
        self._is_over = True
        self._tally.add(np.array([entry], dtype=np.int64))
        number, slot = place_of(entry)
        return StoredDisk(
            size_bytes=self._size_bytes,
            root=NodeAddress(self._session.numbers.pack(number), slot),
            content_hash=id.hex(),
            sizes=FourSizes(
                provisioned_bytes=self._size_bytes,
                read_bytes=self._read_bytes,
                new_bytes=self._storer.new_bytes,
                stored_bytes=self._stream.stored_bytes + self._storer.adopted_bytes,
            ),
            packs=self._tally.table(),
        )

    def abort(self) -> None:
        """See ``DiskWriter.abort``."""
        if self._is_over:
            return
        self._is_over = True
        for _, future in self._under_way:
            future.cancel()
        self._stream.abort()

    def _open_reference(self, reference: StoredDisk, book: SlotBook, *, inherit: bool) -> ReferenceMap | None:
        """Return the reference's map; None when it is damaged and would only have helped."""
        session = self._session
        for pack, use in reference.packs.items():
            session.numbers.set_length(session.numbers.number(pack), use.length_bytes)
        # What is inherited may not skip a block: a reference that leads to avoided slots is refused before.
        avoided = NOTHING_AVOIDED if inherit else session.avoided
        try:
            reader = MapReader(session.vault, reference, moves=session.moves, avoided=avoided)
        except Damage:
            if inherit:
                raise
            return None
        if inherit:
            # The new disk gets a root of its own; all else that the reference uses is inherited until it changes.
            self._tally.inherit(reference.packs)
            self._tally.remove_one(session.numbers.number(reference.root.pack), book.share(reference.root))
        return ReferenceMap(reader, session.numbers, book, size_bytes=self._size_bytes, inherit=inherit)

    def _store_map(self) -> tuple[bytes, int]:
        """Return id and entry of the root, once every run has been worked on."""
        self._submit()
        while self._under_way:
            self._under_way.popleft()[1].result()
        self._collect_nodes(-(-self._size_bytes // BLOCK_BYTES))
        self._store_nodes()
        plain = write_root(self._map.root())
        id = node_id(self._session.vault.keys, plain)
        (entry,) = self._stream.store([self._session.compressor.frame(plain, ids=(id,), kind=FrameKind.MAP)])
        return id, entry

    def _settle(self, feeding_block: int) -> None:
        """Raise what failed, and close the leaves that everything before ``feeding_block`` has passed."""
        while self._under_way and self._under_way[0][1].done():
            self._under_way.popleft()[1].result()
        waiting_block = feeding_block if self._batch is None else self._batch.first_block
        self._collect_nodes(self._under_way[0][0] if self._under_way else waiting_block)
        if len(self._nodes) >= _NODES_HELD_MAX:
            self._store_nodes()

    def _add(self, first_block: int, run: DataRun) -> None:
        """Put a run into the batch that is being gathered, after sending off one that has no room for it."""
        assert run.length_bytes <= limits.RUN_BYTES_MAX
        self._read_bytes += run.length_bytes
        if self._batch is not None and not self._batch.has_room(first_block, run):
            self._submit()
        if self._batch is None:
            self._batch = Batch(self._session.crew.buffers, first_block=first_block)
        self._batch.add(first_block, run)
        if self._batch.is_full:
            self._submit()

    def _submit(self) -> None:
        """Send off what has been gathered."""
        batch, self._batch = self._batch, None
        if batch is not None:
            work = partial(self._store_batch, batch)
            self._under_way.append((batch.first_block, self._session.crew.submit(work, cancel=self._session.cancel)))

    def _store_batch(self, batch: Batch) -> None:
        self._storer.store(batch.numbers, batch.data)
        batch.release()

    def _collect_nodes(self, below_block: int) -> None:
        for number, plain in self._map.take_leaves(below_block=below_block):
            id = node_id(self._session.vault.keys, plain)
            self._nodes.append((number, self._session.compressor.frame(plain, ids=(id,), kind=FrameKind.MAP)))

    def _store_nodes(self) -> None:
        nodes, self._nodes = self._nodes, []
        entries = self._stream.store([frame for _, frame in nodes])
        for (number, frame), entry in zip(nodes, entries, strict=True):
            pack, slot = place_of(entry)
            address = NodeAddress(self._session.numbers.pack(pack), slot)
            self._map.set_leaf(number, address, share_bytes=frame.sealed_bytes)
