"""The lab pool's storage: disks by uuid, with snapshots, clones, change tracking and space as on a VHD repository.

It knows nothing of XAPI's records. Invariants: an acknowledged operation survives a killed lab; a snapshot never
changes; a write is in the change log before it is on the disk.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from holdfast.core import BLOCK_BYTES, Entropy, SystemEntropy
from holdfast.lab.disks import cbt, chain, merge, tree, witness
from holdfast.lab.disks.catalog import SCRATCH_PREFIX, Catalog, Disk, Role
from holdfast.lab.disks.errors import (
    DiskBusy,
    DiskOffline,
    DiskRangeInvalid,
    DiskSizeInvalid,
)
from holdfast.lab.disks.granules import granules_of
from holdfast.lab.disks.layer import VHD_BLOCK_BYTES, Layer, blocks_of
from holdfast.lab.disks.source import StoreSource
from holdfast.lab.disks.tree import SnapshotMade
from holdfast.model import DiskUuid, Extent

__all__ = ["Bytes", "DiskStore"]

_MERGES_PASSED_MAX = 8
"""A read that meets a merge looks again; more merges than this under one read do not happen."""

Bytes = bytes | bytearray | memoryview
_Answer = TypeVar("_Answer")


class DiskStore:
    """All disks of one lab, in one folder. Thread-safe; a context manager that lets go of the folder at the end.

    Every method that names a disk raises ``DiskUnknown`` when there is none, and ``DiskHasNoData`` when it needs bytes
    that were destroyed.
    """

    def __init__(self, folder: Path, *, entropy: Entropy | None = None) -> None:
        self._entropy = entropy or SystemEntropy()
        self._catalog = Catalog(folder)
        self._guard: Callable[[str, int], None] | None = None
        self._offline: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder. Safe to call twice."""
        self._catalog.close()

    @property
    def is_new(self) -> bool:
        """Whether the folder held no list of disks when it was opened."""
        return self._catalog.is_new

    def clear(self) -> None:
        """Remove every disk, and what is remembered of those that were destroyed."""
        self._catalog.clear()

    @property
    def folder(self) -> Path:
        """Where the disks are; who keeps notes about them puts them beside."""
        return self._catalog.folder

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend an empty folder beside the disks; it is gone after the block, or at the next start."""
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=self._catalog.folder) as name:
            yield Path(name)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Make what happens to the tree inside the block durable at its end, as one: thousands of disks at once."""
        with self._catalog.batch():
            yield

    # The tree

    def uuids(self) -> list[DiskUuid]:
        """Return every disk, base copies and bare change logs included."""
        with self._catalog.lock:
            return list(self._catalog.disks)

    def exists(self, uuid: str) -> bool:
        """Whether there is such a disk, be it only its change log."""
        return DiskUuid(uuid) in self._catalog.disks

    def has_data(self, uuid: str) -> bool:
        """Whether the disk's bytes are still there."""
        return self._catalog.disk(uuid).layer is not None

    def is_base_copy(self, uuid: str) -> bool:
        """Whether it is a hidden base copy."""
        return self._catalog.disk(uuid).role is Role.BASE

    def size_bytes(self, uuid: str) -> int:
        """Return the provisioned size."""
        return self._catalog.disk(uuid).size_bytes

    def used_bytes(self, uuid: str) -> int:
        """Return what this node alone takes, in whole 2 MiB blocks; nothing when its data was destroyed."""
        layer = self._catalog.disk(uuid).layer
        return 0 if layer is None else int(np.count_nonzero(layer.vhd_blocks())) * VHD_BLOCK_BYTES

    def held_bytes(self, uuid: str) -> int:
        """Return what this node alone holds of data, in granules of 64 KiB; nothing when its data was destroyed."""
        layer = self._catalog.disk(uuid).layer
        return 0 if layer is None else layer.held_bytes()

    def on_growth(self, guard: Callable[[str, int], None]) -> None:
        """Ask ``guard(disk, bytes)`` before a write takes new space; what it raises is what the writer gets.

        It is called with the disk locked, so it must not wait for anything that writes.
        """
        self._guard = guard

    def create(self, uuid: str, size_bytes: int) -> None:
        """Make an empty disk. ``DiskExists``, or ``DiskSizeInvalid``."""
        _check_size(uuid, size_bytes)
        with self._catalog.lock:
            name = self._catalog.check_free(uuid)
            layer = self._catalog.new_layer(parent=None, size_bytes=size_bytes)
            self._catalog.disks[name] = Disk(name, size_bytes, Role.LIVE, layer)
            self._catalog.save()

    def destroy(self, uuid: str) -> None:
        """Remove a disk, its data and its log; a log in the middle of a chain is added to the next one.

        Base copies on which nothing stands any more stay until they are pruned. ``DiskReadOnly`` for a base copy.
        """
        with self._catalog.lock:
            disk = self._catalog.disk(uuid)
            tree.check_not_base(disk)
            witness.keep_witness(self._catalog, disk)
            cbt.fold(self._catalog, disk)
            with disk.lock:
                disk.layer = None
            del self._catalog.disks[disk.uuid]
            self._catalog.save()
        witness.settle_surplus(self._catalog)

    def data_destroy(self, uuid: str) -> None:
        """Free a disk's data and keep its change log. ``CbtLogMissing`` without one. Doing it twice is harmless."""
        with self._catalog.lock:
            disk = self._catalog.disk(uuid)
            tree.check_not_base(disk)
            cbt.check_log(disk)
            witness.keep_witness(self._catalog, disk)
            with disk.lock:
                disk.layer = None
            self._catalog.save()
        witness.settle_surplus(self._catalog)

    def prune(self, uuids: Collection[str]) -> list[DiskUuid]:
        """Remove those of the disks that are base copies on which nothing stands any more; return which they were."""
        with self._catalog.lock:
            dropped = self._catalog.drop_childless_bases(uuids)
            if dropped:
                self._catalog.save()
            return dropped

    def resize(self, uuid: str, size_bytes: int) -> None:
        """Grow a disk; the new range is zeros and unchanged to the change log. ``DiskSizeInvalid`` when smaller."""
        _check_size(uuid, size_bytes)
        with self._catalog.lock:
            disk = self._catalog.disk(uuid)
            tree.check_not_base(disk)
            if size_bytes < disk.size_bytes:
                raise DiskSizeInvalid(disk=uuid, size_bytes=size_bytes, reason=f"smaller than {disk.size_bytes}")
            with disk.lock:
                tree.top_of(disk).grow(max(1, size_bytes))
                if disk.log is not None:
                    disk.log.changed.grow(max(1, granules_of(size_bytes)))
                disk.size_bytes = size_bytes
            self._catalog.save()

    def snapshot(self, uuid: str, snapshot_uuid: str) -> SnapshotMade:
        """Freeze the disk's content under a new uuid; no data is copied. ``DiskChainTooLong`` at 30 layers.

        What the disk was becomes a hidden base copy; the disk and its snapshot stand on it. The snapshot takes the
        change log over.
        """
        return tree.branch(self._catalog, uuid, copy_uuid=snapshot_uuid, role=Role.SNAPSHOT, entropy=self._entropy)

    def clone(self, uuid: str, clone_uuid: str) -> SnapshotMade:
        """Make a second, independent disk of the same content; no data is copied. It has no change log."""
        return tree.branch(self._catalog, uuid, copy_uuid=clone_uuid, role=Role.LIVE, entropy=self._entropy)

    def freeze(self, uuid: str) -> SnapshotMade:
        """Put the disk alone on a base copy of its present content. ``DiskChainTooLong`` at 30 layers."""
        return tree.freeze(self._catalog, uuid, entropy=self._entropy)

    def reset(self, uuid: str) -> None:
        """Take the disk back to the base copy that it stands on. Doing it twice, or without one, is harmless."""
        tree.reset(self._catalog, uuid)

    def parent(self, uuid: str) -> DiskUuid | None:
        """Return the base copy that the disk stands on directly."""
        with self._catalog.lock:
            layer = self._catalog.disk(uuid).layer
            base = None if layer is None else tree.base_under(self._catalog, layer)
            return None if base is None else base.uuid

    def children(self, uuid: str) -> list[DiskUuid]:
        """Return the disks and base copies that stand on it directly."""
        with self._catalog.lock:
            layer = self._catalog.disk(uuid).layer
            return [] if layer is None else [disk.uuid for disk in self._catalog.children(layer)]

    def chain(self, uuid: str) -> list[DiskUuid]:
        """Return the disk and the base copies under it, top first."""
        with self._catalog.lock:
            layer = self._catalog.disk(uuid).layer
            lineage = [] if layer is None else layer.lineage()
            names = {disk.layer: disk.uuid for disk in self._catalog.disks.values()}
            return [names[layer] for layer in lineage]

    def depth(self, uuid: str) -> int:
        """Return how many layers a read of the disk may pass through."""
        return len(tree.top_of(self._catalog.disk(uuid)).lineage())

    def related(self, uuid: str, other_uuid: str) -> bool:
        """Whether the two share a layer, so that their difference is smaller than their content."""
        layers = tree.top_of(self._catalog.disk(uuid)).lineage()
        return any(layer in layers for layer in tree.top_of(self._catalog.disk(other_uuid)).lineage())

    def merged_bytes(self, uuid: str) -> int:
        """Return what the base copy below the disk would take, in whole 2 MiB blocks, were the disk merged into it."""
        layer = tree.top_of(self._catalog.disk(uuid))
        both = [layer] if layer.parent is None else [layer, layer.parent]
        return len(blocks_of(both, size_bytes=max(each.size_bytes for each in both))) * VHD_BLOCK_BYTES

    def coalescable(self) -> list[DiskUuid]:
        """Return what ``coalesce`` would accept, base copies first."""
        return merge.iter_coalescable(self._catalog)

    def coalesce(self, uuid: str) -> int:
        """Merge a node into the base copy that it alone stands on; return the bytes moved. ``DiskBusy`` otherwise."""
        witness.settle_beside(self._catalog, tree.top_of(self._catalog.disk(uuid)))
        with self._catalog.lock:
            return merge.coalesce(self._catalog, self._catalog.disk(uuid))

    # Bytes

    def read(self, uuid: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Return exactly that range. ``DiskRangeInvalid`` beyond the end."""
        buffer = bytearray(length_bytes)
        self.read_into(uuid, offset_bytes, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, uuid: str, offset_bytes: int, view: memoryview) -> None:
        """Fill ``view`` from there. Ranges without data touch no file. ``DiskRangeInvalid`` beyond the end."""
        self._check_online(uuid)
        disk = self._catalog.disk(uuid)
        _check_range(disk, offset_bytes, len(view))
        if len(view):
            _reading(disk, lambda layer: chain.read_into(layer, view, offset_bytes))

    def write(self, uuid: str, offset_bytes: int, data: Bytes) -> None:
        """Write bytes at any alignment; the change log sees them. ``DiskReadOnly``, ``DiskRangeInvalid``."""
        view = memoryview(data).cast("B")
        if len(view):
            with self._holding(uuid, offset_bytes, len(view)) as disk:
                self._check_room(disk, offset_bytes, len(view))
                _log_change(disk, offset_bytes, len(view))
                _reading(disk, lambda layer: chain.write(layer, view, offset_bytes))

    def write_together(self, uuid: str, pieces: Sequence[tuple[int, Bytes]]) -> None:
        """Write pieces, each with its offset, so that no snapshot holds only some of them."""
        if not pieces:
            return
        low = min(offset_bytes for offset_bytes, _ in pieces)
        high = max(offset_bytes + len(data) for offset_bytes, data in pieces)
        with self._holding(uuid, low, high - low) as disk:
            for offset_bytes, data in pieces:
                self._check_room(disk, offset_bytes, len(data))
            for offset_bytes, data in pieces:
                _log_change(disk, offset_bytes, len(data))
                view = memoryview(data).cast("B")
                _reading(disk, partial(chain.write, data=view, offset_bytes=offset_bytes))

    def adopt(self, uuid: str, file: Path, extents: Iterable[Extent]) -> None:
        """Make a file from ``scratch`` the content of a disk that was never written, without copying it.

        Only ``extents`` count, in whole granules; the rest of the disk is zeros. ``DiskBusy`` when there is content.
        """
        disk = self._catalog.disk(uuid)
        data = np.zeros(granules_of(disk.size_bytes), dtype=np.bool_)
        for extent in extents:
            _check_range(disk, extent.offset_bytes, extent.length_bytes)
            data[extent.offset_bytes // BLOCK_BYTES : granules_of(extent.end_bytes)] = True
        with self._writing(uuid, 0, disk.size_bytes):
            layer = tree.top_of(disk)
            if not layer.is_empty or layer.parent is not None:
                raise DiskBusy(disk=uuid, reason="only a disk that was never written can adopt a file")
            layer.adopt(file, data)

    def zero(self, uuid: str, offset_bytes: int, length_bytes: int) -> None:
        """Make a range read as zeros; what was never allocated stays so. The change log sees it."""
        if length_bytes:
            with self._writing(uuid, offset_bytes, length_bytes) as disk:
                _reading(disk, lambda layer: chain.zero(layer, offset_bytes, length_bytes))

    def copy(self, uuid: str, into: str, *, blocks: NDArray[np.int64] | None = None) -> None:
        """Make ``into``, as large or larger, read as ``uuid`` does: all of it, or only the given 2 MiB blocks."""
        size_bytes = self.size_bytes(uuid)
        if self.size_bytes(into) < size_bytes:
            raise DiskSizeInvalid(disk=into, size_bytes=self.size_bytes(into), reason=f"needs {size_bytes}")
        if blocks is None:
            blocks = np.arange(-(-size_bytes // VHD_BLOCK_BYTES), dtype=np.int64)
        buffer = memoryview(bytearray(VHD_BLOCK_BYTES))
        for block in blocks.tolist():
            low = block * VHD_BLOCK_BYTES
            high = min(low + VHD_BLOCK_BYTES, size_bytes)
            position = low
            for extent in self.data_extents(uuid, offset_bytes=low, length_bytes=high - low):
                self.zero(into, position, extent.offset_bytes - position)
                part = buffer[: extent.length_bytes]
                self.read_into(uuid, extent.offset_bytes, part)
                self.write(into, extent.offset_bytes, part)
                position = extent.end_bytes
            self.zero(into, position, high - position)

    def data_extents(self, uuid: str, *, offset_bytes: int = 0, length_bytes: int | None = None) -> Iterator[Extent]:
        """Yield the ranges inside the window that may hold anything but zeros: ascending, merged, on 64 KiB borders but
        for the window's own ends."""
        disk = self._catalog.disk(uuid)
        if length_bytes is None:
            length_bytes = disk.size_bytes - offset_bytes
        _check_range(disk, offset_bytes, length_bytes)
        yield from chain.data_extents(tree.top_of(disk), offset_bytes, length_bytes)

    def as_source(self, uuid: str) -> StoreSource:
        """Return the disk as a ``DiskSource``."""
        return StoreSource(self, uuid=uuid)

    # Differences

    def allocated_blocks(self, uuid: str) -> NDArray[np.int64]:
        """Return the 2 MiB blocks that any layer of the disk holds, ascending."""
        disk = self._catalog.disk(uuid)
        return blocks_of(tree.top_of(disk).lineage(), size_bytes=disk.size_bytes)

    def difference_blocks(self, base: str, target: str) -> NDArray[np.int64]:
        """Return the 2 MiB blocks in which ``target`` may differ from ``base``, ascending.

        As VHD counts: every block of every node that only one of the two stands on, changed back or not.
        """
        disk = self._catalog.disk(target)
        ours, theirs = tree.top_of(disk).lineage(), tree.top_of(self._catalog.disk(base)).lineage()
        apart = [layer for layer in ours if layer not in theirs] + [layer for layer in theirs if layer not in ours]
        return blocks_of(apart, size_bytes=disk.size_bytes)

    def enable_cbt(self, uuid: str) -> None:
        """Track writes from now on. Enabling twice keeps the log."""
        with self._catalog.lock:
            disk = self._catalog.disk(uuid)
            tree.check_not_base(disk)
            with disk.lock:
                cbt.start(self._catalog, disk)
            self._catalog.save()

    def disable_cbt(self, uuid: str) -> None:
        """Forget the disk's log. Logs of its snapshots stay, but lead nowhere. Disabling twice is harmless."""
        with self._catalog.lock:
            disk = self._catalog.disk(uuid)
            with disk.lock:
                cbt.stop(self._catalog, disk)
            self._catalog.save()

    def break_log(self, uuid: str) -> None:
        """Doubt the disk's change log from now on, as after a crash of the host that wrote it."""
        with self._catalog.lock:
            log = self._catalog.disk(uuid).log
            if log is not None:
                log.is_consistent = False
                self._catalog.save()

    def log_is_consistent(self, uuid: str) -> bool:
        """Whether the disk's change log can be trusted. A disk without one has nothing to doubt."""
        log = self._catalog.disk(uuid).log
        return log is None or log.is_consistent

    def cbt_enabled(self, uuid: str) -> bool:
        """Whether the disk has a change log."""
        return self._catalog.disk(uuid).log is not None

    def changed_blocks(self, from_uuid: str, to_uuid: str) -> NDArray[np.bool_]:
        """Return for each 64 KiB of ``to_uuid`` whether it was written after ``from_uuid``.

        ``CbtLogMissing``, or ``CbtUnrelated`` when no chain of logs leads from the one to the other (also the wrong way
        round, or a disk to itself).
        """
        with self._catalog.lock:
            return cbt.changed_blocks(self._catalog, self._catalog.disk(from_uuid), target=self._catalog.disk(to_uuid))

    # Proof

    @property
    def witness_enabled(self) -> bool:
        """Whether destroyed snapshots are remembered."""
        return self._catalog.keeps_witnesses

    def set_witness(self, *, enabled: bool) -> None:
        """Remember snapshots destroyed from now on, or stop doing so; what is remembered stays."""
        with self._catalog.lock:
            self._catalog.keeps_witnesses = enabled
            self._catalog.save()

    def sha256(self, uuid: str) -> str:
        """Return the hash of the disk's whole content in hex, holes as zeros; of a destroyed snapshot if witnessed."""
        disk = self._catalog.disks.get(DiskUuid(uuid))
        if disk is None or disk.layer is None:
            seen = self._catalog.witnesses.get(DiskUuid(uuid))
            if seen is not None:
                return witness.witness_sha256(self._catalog, seen)
        disk = self._catalog.disk(uuid)
        return _reading(disk, lambda layer: witness.disk_sha256(disk, layer))

    def set_offline(self, uuids: Iterable[str]) -> None:
        """Let reading and writing these disks, and no others, fail with ``DiskOffline`` from now on."""
        self._offline = frozenset(uuids)

    def _check_online(self, uuid: str) -> None:
        if uuid in self._offline:
            raise DiskOffline(disk=uuid)

    def _check_room(self, disk: Disk, offset_bytes: int, length_bytes: int) -> None:
        if self._guard is not None:
            blocks = tree.top_of(disk).missing_blocks(offset_bytes, length_bytes)
            if blocks:
                self._guard(disk.uuid, blocks * VHD_BLOCK_BYTES)

    @contextlib.contextmanager
    def _writing(self, uuid: str, offset_bytes: int, length_bytes: int) -> Iterator[Disk]:
        """Hold the disk's lock, the range logged as changed."""
        with self._holding(uuid, offset_bytes, length_bytes) as disk:
            _log_change(disk, offset_bytes, length_bytes)
            yield disk

    @contextlib.contextmanager
    def _holding(self, uuid: str, offset_bytes: int, length_bytes: int) -> Iterator[Disk]:
        """Hold the lock of a disk that may be written there."""
        self._check_online(uuid)
        disk = self._catalog.disk(uuid)
        tree.check_not_base(disk)
        with disk.lock:
            _check_range(disk, offset_bytes, length_bytes)
            tree.top_of(disk)
            yield disk


def _log_change(disk: Disk, offset_bytes: int, length_bytes: int) -> None:
    if disk.log is not None:
        disk.log.changed.mark(offset_bytes // BLOCK_BYTES, granules_of(offset_bytes + length_bytes), 1)


def _reading(disk: Disk, action: Callable[[Layer], _Answer]) -> _Answer:
    """Do ``action`` on the disk's top layer, again when a merge took a layer away under it."""
    for _ in range(_MERGES_PASSED_MAX):
        with contextlib.suppress(FileNotFoundError):
            return action(tree.top_of(disk))
    raise DiskBusy(disk=disk.uuid, reason="its layers were merged again and again while it was read")


def _check_size(uuid: str, size_bytes: int) -> None:
    if size_bytes < 0:
        raise DiskSizeInvalid(disk=uuid, size_bytes=size_bytes, reason="less than nothing")


def _check_range(disk: Disk, offset_bytes: int, length_bytes: int) -> None:
    if offset_bytes < 0 or length_bytes < 0 or offset_bytes + length_bytes > disk.size_bytes:
        raise DiskRangeInvalid(
            disk=disk.uuid, offset_bytes=offset_bytes, length_bytes=length_bytes, size_bytes=disk.size_bytes
        )
