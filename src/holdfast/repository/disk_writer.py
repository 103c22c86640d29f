"""One disk being written into a repository: runs in, a stored disk out.

The feeding thread hands runs to the crew; a worker finds the zero blocks of a run with one numpy call, hashes the
others, asks whether they are known, and compresses and seals what is new. Invariant: ``finish`` returns only when
every pack and map node that the stored disk refers to is durable.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from blake3 import blake3

from holdfast.core import BLOCK_BYTES, limits
from holdfast.model import Coverage, DataRun, FourSizes, Run, ZeroRun
from holdfast.repository.avoided import NOTHING_AVOIDED
from holdfast.repository.damage import Damage
from holdfast.repository.disk_map import node_id, write_root
from holdfast.repository.entries import lengths_of, pack_numbers_of, place_of
from holdfast.repository.frame import Frame
from holdfast.repository.layout import FrameKind
from holdfast.repository.map_builder import MapBuilder
from holdfast.repository.map_reader import MapReader
from holdfast.repository.pack_tally import PackTally
from holdfast.repository.session import WriteSession
from holdfast.repository.stored_disk import NodeAddress, StoredDisk

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
        self._block_key = session.vault.keys.block_id_key
        inherit = coverage is Coverage.CHANGES
        reader = None if reference is None else _open_map(session, reference, is_needed=inherit)
        self._tally = PackTally(session.numbers, start=reference.packs if reference and inherit else None)
        if reference is not None and inherit:
            # The new disk gets a root of its own; all else that the reference uses is inherited until it changes.
            root = session.vault.shelf.open(reference.root.pack).frame_extent(reference.root.slot)
            self._tally.remove_one(session.numbers.number(reference.root.pack), root[1])
        elif reference is not None:
            for pack, use in reference.packs.items():
                session.numbers.set_length(session.numbers.number(pack), use.length_bytes)
        self._map = MapBuilder(
            session.vault, session.numbers, self._tally, size_bytes=size_bytes, reference=reader, inherit=inherit
        )
        self._stream = session.dock.open_stream()
        self._under_way: deque[tuple[int, Future[None]]] = deque()
        self._nodes: list[tuple[int, Frame]] = []
        self._next_block = 0
        self._lock = threading.Lock()
        self._read_bytes = 0
        self._new_bytes = 0
        self._adopted_bytes = 0
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
                    self._submit(first_block, run)

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
                new_bytes=self._new_bytes,
                stored_bytes=self._stream.stored_bytes + self._adopted_bytes,
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

    def _store_map(self) -> tuple[bytes, int]:
        """Return id and entry of the root, once every run has been worked on."""
        while self._under_way:
            self._under_way.popleft()[1].result()
        self._collect_nodes(-(-self._size_bytes // BLOCK_BYTES))
        self._store_nodes()
        plain = write_root(self._map.root())
        id = node_id(self._session.vault.keys, plain)
        (entry,) = self._stream.store([self._session.compressor.frame(plain, id=id, kind=FrameKind.MAP)])
        return id, entry

    def _settle(self, feeding_block: int) -> None:
        """Raise what failed, and close the leaves that everything before ``feeding_block`` has passed."""
        while self._under_way and self._under_way[0][1].done():
            self._under_way.popleft()[1].result()
        self._collect_nodes(self._under_way[0][0] if self._under_way else feeding_block)
        if len(self._nodes) >= _NODES_HELD_MAX:
            self._store_nodes()

    def _submit(self, first_block: int, run: DataRun) -> None:
        assert run.length_bytes <= limits.RUN_BYTES_MAX
        self._read_bytes += run.length_bytes
        # Copied even when it is ``bytes``: the last block of a disk may be short, and is stored filled up with zeros.
        buffer = self._session.crew.buffers.take()
        padded_bytes = -(-run.length_bytes // BLOCK_BYTES) * BLOCK_BYTES
        # numpy copies without holding the interpreter's lock, so the workers go on meanwhile.
        np.copyto(np.frombuffer(buffer, np.uint8, run.length_bytes), np.frombuffer(run.data, np.uint8))
        buffer[run.length_bytes : padded_bytes] = bytes(padded_bytes - run.length_bytes)
        work = _Task(self, first_block, buffer, length_bytes=padded_bytes)
        self._under_way.append((first_block, self._session.crew.submit(work, cancel=self._session.cancel)))

    def store_run(self, first_block: int, data: memoryview) -> None:
        """Do a worker's part: everything from the zero map to sealed frames, for one run of whole blocks.

        Nothing refers to ``data`` any more when this returns.
        """
        count = len(data) // BLOCK_BYTES
        filled = np.frombuffer(data, dtype=np.uint64).reshape(count, -1).any(axis=1)
        blocks: list[int] = np.flatnonzero(filled).tolist()
        entries = np.zeros(count, dtype=np.int64)
        if blocks:
            pieces = [data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] for block in blocks]
            key = self._block_key
            ids = [blake3(piece, key=key).digest() for piece in pieces]
            entries[blocks] = self._entries_of(first_block, blocks, ids, pieces)
        self._map.put(first_block, entries)

    def _entries_of(
        self, first_block: int, blocks: Sequence[int], ids: Sequence[bytes], pieces: Sequence[memoryview]
    ) -> list[int]:
        """Return where each block lies, cheapest test first; what nobody knows is stored."""
        found: dict[bytes, int] = {}
        for id, entry in zip(ids, self._map.match_reference(first_block, blocks, ids), strict=True):
            if entry:
                found[id] = entry
        for find in (self._stream.find, self._session.known.find):
            asked = list(dict.fromkeys(id for id in ids if id not in found))
            found.update((id, entry) for id, entry in zip(asked, find(asked), strict=True) if entry is not None)
        self._count_adopted([found[id] for id in dict.fromkeys(ids) if id in found])
        new = {id: piece for id, piece in zip(ids, pieces, strict=True) if id not in found}
        if new:
            compressor = self._session.compressor
            frames = [compressor.frame(piece, id=id, kind=FrameKind.DATA) for id, piece in new.items()]
            found.update(zip(new, self._stream.store(frames), strict=True))
            with self._lock:
                self._new_bytes += len(new) * BLOCK_BYTES
        return [found[id] for id in ids]

    def return_buffer(self, buffer: bytearray) -> None:
        """Let the next run use a worker's buffer."""
        self._session.crew.buffers.give_back(buffer)

    def _count_adopted(self, entries: Sequence[int]) -> None:
        """Count blocks that an interrupted execution stored as what they are: new in this run."""
        if not self._session.adopted or not entries:
            return
        found = np.array(entries, dtype=np.int64)
        taken = found[np.isin(pack_numbers_of(found), list(self._session.adopted))]
        with self._lock:
            self._new_bytes += len(taken) * BLOCK_BYTES
            self._adopted_bytes += int(lengths_of(taken).sum())

    def _collect_nodes(self, below_block: int) -> None:
        for number, plain in self._map.take_leaves(below_block=below_block):
            id = node_id(self._session.vault.keys, plain)
            self._nodes.append((number, self._session.compressor.frame(plain, id=id, kind=FrameKind.MAP)))

    def _store_nodes(self) -> None:
        nodes, self._nodes = self._nodes, []
        entries = self._stream.store([frame for _, frame in nodes])
        for (number, frame), entry in zip(nodes, entries, strict=True):
            pack, slot = place_of(entry)
            address = NodeAddress(self._session.numbers.pack(pack), slot)
            self._map.set_leaf(number, address, length_bytes=frame.sealed_bytes)


def _open_map(session: WriteSession, reference: StoredDisk, *, is_needed: bool) -> MapReader | None:
    """Return the reference's map; None when it is damaged and would only have helped."""
    # What is inherited may not skip a block: a reference that leads to avoided slots is refused before.
    avoided = NOTHING_AVOIDED if is_needed else session.avoided
    try:
        return MapReader(session.vault, reference, moves=session.moves, avoided=avoided)
    except Damage:
        if is_needed:
            raise
        return None


class _Task:
    """One run on its way to a worker."""

    __slots__ = ("_buffer", "_first_block", "_length_bytes", "_writer")

    def __init__(self, writer: RepositoryDiskWriter, first_block: int, buffer: bytearray, *, length_bytes: int) -> None:
        self._writer = writer
        self._first_block = first_block
        self._buffer = buffer
        self._length_bytes = length_bytes

    def __call__(self) -> None:
        self._writer.store_run(self._first_block, memoryview(self._buffer)[: self._length_bytes])
        self._writer.return_buffer(self._buffer)
