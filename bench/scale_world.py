"""A repository of a hosting company in minutes: 1,000 VMs, 100,000 points, ten million blocks, 100 TB of disks.

Points, maps, trailers, indexes and catalogues are real, written with the engine's own writers. Of the blocks only ids
and lengths are real; their frames are holes in sparse files. So everything but reading blocks can be measured, in a few
gigabytes of disk. One seed makes one repository.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.core import BLOCK_BYTES, GIB, SeededEntropy, SystemClock
from holdfast.model import (
    ChangeSource,
    Consistency,
    DiskFacts,
    DiskUuid,
    FourSizes,
    JsonObject,
    PointFacts,
    PoolUuid,
    RunId,
    VmIdentity,
    VmUuid,
)
from holdfast.repository import (
    NodeAddress,
    OpenHolder,
    OpenUnlock,
    PackTable,
    PackUse,
    RestorePoint,
    StoredDisk,
    create_repository,
    layout,
)
from holdfast.repository.keys.epochs import hold_keys
from holdfast.repository.layout import LEAF_BLOCKS, Encoding, FrameKind, PackId, pack_key
from holdfast.repository.packs.disk_map import Leaf, Root, blocks_of_leaf, leaf_count, node_id, write_leaf, write_root
from holdfast.repository.packs.frame import Compressor, Frame, FrameCipher
from holdfast.repository.packs.index import IndexedPack, write_index
from holdfast.repository.packs.pack import SealedTrailer
from holdfast.repository.packs.trailer import TrailerNotes, write_trailer
from holdfast.repository.points.catalogue import write_catalogue
from holdfast.repository.points.point import publish_point
from holdfast.repository.sealing import KeyRing
from holdfast.repository.vault import Vault
from holdfast.storage import PosixStore
from holdfast.storage.posix_calls import PosixCalls

__all__ = ["ScaleRecipe", "make_repository"]

_PACK_SLOTS = 1024
_FRAME_BYTES = (20_000, 60_000)
"""Blocks of real disks compress to about 35 KB, more or less."""

_RECORD_BYTES = 60_000
"""A VM's whole record with its interfaces and metrics, as a pool gives it; it hardly differs from point to point."""

_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRecipe:
    """How much there is."""

    vms: int = 1000
    points_per_vm: int = 100
    disk_bytes: int = 100 * GIB
    first_blocks: int = 8192
    """Blocks of a VM's first point that nobody else has."""
    changed_blocks: int = 20
    """Blocks that each later point changes, in two leaves."""
    seed: int = 1

    @property
    def blocks(self) -> int:
        """Different blocks in the repository."""
        return self.vms * (self.first_blocks + (self.points_per_vm - 1) * self.changed_blocks)


class _HastyCalls(PosixCalls):
    """A file system that is not asked to make anything durable: the repository is made once, on one machine."""

    def make_durable(self, descriptor: int) -> None:
        """See ``PosixCalls.make_durable``."""

    def make_folder_durable(self, folder: Path) -> None:
        """See ``PosixCalls.make_folder_durable``."""


@dataclass(slots=True)
class _Pack:
    """A pack that is being made up."""

    id: PackId
    rows: list[tuple[bytes, int, int, int]] = field(default_factory=list)
    """Id, sealed length, kind, encoding."""
    nodes: dict[int, Frame] = field(default_factory=dict)
    """The frames that are real, by slot."""

    @property
    def frames_bytes(self) -> int:
        return sum(length for _, length, _, _ in self.rows)


@dataclass(slots=True)
class _Disk:
    """A disk as its points go by."""

    places: npt.NDArray[np.int64]
    """For each block its pack (1 + its number here) and slot, 0 for zero."""
    packs: list[PackId] = field(default_factory=list)
    lengths: dict[PackId, int] = field(default_factory=dict)
    leaves: list[NodeAddress | None] = field(default_factory=list)
    node_bytes: dict[NodeAddress, int] = field(default_factory=dict)
    frame_bytes: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """Lengths of the frames of each pack, by slot."""


def make_repository(folder: Path, recipe: ScaleRecipe, *, say: Callable[[str], None]) -> None:
    """Make the repository in ``folder``, which must not exist. It has no secret."""
    store = PosixStore(folder, create=True, calls=_HastyCalls())
    clock, entropy = SystemClock(), SeededEntropy(recipe.seed)
    repository = create_repository(store, holders=[OpenHolder()], clock=clock, entropy=entropy).id
    keys = KeyRing(hold_keys(store, OpenUnlock(), repository=repository), repository=repository)
    maker = _Maker(folder, Vault(store, keys, clock=clock, entropy=entropy), recipe)
    for number in range(recipe.vms):
        maker.make_vm(number)
        if (number + 1) % max(1, recipe.vms // 20) == 0:
            say(f"{number + 1} of {recipe.vms} VMs")
    maker.finish()


class _Maker:
    def __init__(self, folder: Path, vault: Vault, recipe: ScaleRecipe) -> None:
        self._folder = folder
        self._vault = vault
        self._recipe = recipe
        self._random = np.random.default_rng(recipe.seed)
        self._compressor = Compressor(level=1)
        self._indexed: list[IndexedPack] = []
        self._points: list[RestorePoint] = []
        self._record: JsonObject = {f"field-{n}": f"value {n} " * 20 for n in range(_RECORD_BYTES // 220)}

    def make_vm(self, number: int) -> None:
        """Make all points of one VM."""
        recipe = self._recipe
        count = recipe.disk_bytes // BLOCK_BYTES
        disk = _Disk(np.zeros(count, dtype=np.int64), leaves=[None] * leaf_count(recipe.disk_bytes))
        for turn in range(recipe.points_per_vm):
            if turn == 0:
                # As on real disks, what is used lies together: in a tenth of all leaves.
                used = max(1, min(leaf_count(recipe.disk_bytes), recipe.first_blocks * 4 // LEAF_BLOCKS))
                blocks = self._random.choice(min(count, used * LEAF_BLOCKS), recipe.first_blocks, replace=False)
            else:
                leaf = int(self._random.integers(0, max(1, recipe.first_blocks * 4 // LEAF_BLOCKS)))
                low, high = leaf * LEAF_BLOCKS, min(count, (leaf + 2) * LEAF_BLOCKS)
                blocks = self._random.integers(low, high, recipe.changed_blocks)
            self._make_point(number, turn, disk, np.unique(blocks))

    def finish(self) -> None:
        """Write what is left of indexes and catalogues."""
        self._write_index()
        self._write_catalogue()

    def _make_point(self, number: int, turn: int, disk: _Disk, blocks: npt.NDArray[np.int64]) -> None:
        packs = []
        for start in range(0, len(blocks), _PACK_SLOTS):
            packs.append(self._data_pack(disk, blocks[start : start + _PACK_SLOTS]))
        pack = packs[-1]
        for leaf in np.unique(blocks // LEAF_BLOCKS).tolist():
            disk.leaves[leaf] = self._add_node(disk, pack, self._leaf_bytes(disk, leaf))
        root_bytes = write_root(Root(self._recipe.disk_bytes, tuple(disk.leaves)))
        root = self._add_node(disk, pack, root_bytes)
        stored_bytes = sum(self._store_pack(disk, each) for each in packs)
        self._publish(number, turn, disk, root, node_id(self._vault.keys, root_bytes), stored_bytes=stored_bytes)

    def _data_pack(self, disk: _Disk, blocks: npt.NDArray[np.int64]) -> _Pack:
        pack = _Pack(PackId(self._vault.entropy.token_bytes(16)))
        disk.packs.append(pack.id)
        lengths = self._random.integers(*_FRAME_BYTES, len(blocks))
        ids = self._random.bytes(32 * len(blocks))
        disk.frame_bytes.append(lengths)
        for slot, length in enumerate(lengths.tolist()):
            pack.rows.append((ids[32 * slot : 32 * slot + 32], length, FrameKind.DATA, Encoding.ZSTD))
        disk.places[blocks] = (len(disk.packs) << 16) + np.arange(len(blocks))
        return pack

    def _leaf_bytes(self, disk: _Disk, number: int) -> bytes:
        count = blocks_of_leaf(self._recipe.disk_bytes, number)
        places = disk.places[number * LEAF_BLOCKS : number * LEAF_BLOCKS + count]
        named, index = np.unique(places >> 16, return_inverse=True)
        has_zeros = named[0] == 0
        packs = tuple(disk.packs[each - 1] for each in named.tolist() if each)
        return write_leaf(
            Leaf(packs, (index if has_zeros else index + 1).astype(np.uint16), (places & 0xFFFF).astype(np.uint16))
        )

    def _add_node(self, disk: _Disk, pack: _Pack, plain: bytes) -> NodeAddress:
        frame = self._compressor.frame(plain, ids=(node_id(self._vault.keys, plain),), kind=FrameKind.MAP)
        address = NodeAddress(pack.id, len(pack.rows))
        pack.nodes[address.slot] = frame
        pack.rows.append((frame.ids[0], frame.sealed_bytes, FrameKind.MAP, frame.encoding))
        disk.node_bytes[address] = frame.sealed_bytes
        return address

    def _store_pack(self, disk: _Disk, pack: _Pack) -> int:
        """Write a pack as a sparse file; return its length."""
        cipher = FrameCipher(self._vault.keys, pack.id)
        rows = np.zeros(len(pack.rows), dtype=layout.TRAILER_ROW)
        for row, (id, length, kind, encoding) in zip(rows, pack.rows, strict=True):
            row["id"], row["length"], row["kind"], row["encoding"] = np.void(id), length, kind, encoding
            row["count"] = 1
        offsets = layout.PACK_HEADER.size + np.concatenate(([0], np.cumsum(rows["length"].astype(np.int64))))
        sealed = cipher.seal_trailer(write_trailer(rows.tobytes(), TrailerNotes(run="scale")))
        path = self._folder / pack_key(pack.id)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        end = int(offsets[-1])
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.pwrite(descriptor, cipher.header, 0)
            for slot, frame in pack.nodes.items():
                room = bytearray(frame.sealed_bytes)
                cipher.seal_into(frame, slot, memoryview(room))
                os.pwrite(descriptor, room, int(offsets[slot]))
            tail = sealed + layout.PACK_TAIL.pack(layout.PACK_TAIL_MAGIC, len(sealed))
            os.pwrite(descriptor, tail, end)
        finally:
            os.close(descriptor)
        length_bytes = end + len(tail)
        disk.lengths[pack.id] = length_bytes
        self._indexed.append(IndexedPack(SealedTrailer(pack.id, length_bytes, sealed, cipher.epoch), rows))
        if len(self._indexed) >= 1024:
            self._write_index()
        return length_bytes

    def _publish(
        self, number: int, turn: int, disk: _Disk, root: NodeAddress, content_hash: bytes, *, stored_bytes: int
    ) -> None:
        taken_at = _START + timedelta(days=turn, seconds=number)
        size_bytes = self._recipe.disk_bytes
        sizes = FourSizes(
            provisioned_bytes=size_bytes, read_bytes=stored_bytes, new_bytes=stored_bytes, stored_bytes=stored_bytes
        )
        stored = StoredDisk(
            size_bytes=size_bytes,
            root=root,
            content_hash=content_hash.hex(),
            sizes=sizes,
            packs=self._table(disk, root),
        )
        vm = VmUuid(f"00000000-0000-4000-8000-{number:012x}")
        facts = PointFacts(
            vm=VmIdentity(uuid=vm, name=f"vm-{number:04d}", pool=PoolUuid("pool-1"), pool_name="Main"),
            taken_at=taken_at,
            run=RunId(f"r-{turn:04d}-{number:04d}"),
            job="nightly",
            consistency=Consistency.CRASH,
            previous=None,
            tags=("gold",),
            vm_record=self._record,
            vm_metadata=b"",
        )
        disk_facts = DiskFacts(
            uuid=DiskUuid(f"00000000-0000-4000-9000-{number:012x}"),
            name=f"vm-{number:04d} system",
            position="0",
            bootable=True,
            size_bytes=size_bytes,
            change_source=ChangeSource.CBT if turn else ChangeSource.FULL,
            change_reason="changed blocks are known since the last restore point",
            reference=None,
            vdi_record={},
            vbd_record={},
        )
        self._points.append(publish_point(self._vault, facts, [(disk_facts, stored)], check_before=lambda: None))
        if len(self._points) >= 4096:
            self._write_catalogue()

    def _table(self, disk: _Disk, root: NodeAddress) -> PackTable:
        """Return the pack table of the disk as it is now."""
        uses: dict[PackId, tuple[int, int]] = {}
        present = disk.places[disk.places > 0]
        for pack_number in np.unique(present >> 16).tolist():
            slots = present[present >> 16 == pack_number] & 0xFFFF
            pack = disk.packs[pack_number - 1]
            uses[pack] = (len(slots), int(disk.frame_bytes[pack_number - 1][slots].sum()))
        for node in [root, *(leaf for leaf in disk.leaves if leaf is not None)]:
            references, live_bytes = uses.get(node.pack, (0, 0))
            uses[node.pack] = (references + 1, live_bytes + disk.node_bytes[node])
        return PackTable(
            {
                pack: PackUse(length_bytes=disk.lengths[pack], references=references, live_bytes=live_bytes)
                for pack, (references, live_bytes) in uses.items()
            }
        )

    def _write_index(self) -> None:
        if self._indexed:
            write_index(self._vault, self._indexed)
            self._indexed = []

    def _write_catalogue(self) -> None:
        if self._points:
            write_catalogue(self._vault, self._points)
            self._points = []
