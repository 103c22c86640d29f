"""Changed block tracking: which 64 KiB granules were written between two moments of a disk.

Each tracked disk owns a log of what was written since the snapshot before it. A snapshot takes the live disk's log over
and the live disk starts an empty one, so the logs form a chain in time. Invariant: the logs after A up to and including
B, put together, cover every write that happened between the moments A and B.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from holdfast.lab.disks.catalog import Catalog, Disk
from holdfast.lab.disks.errors import CbtLogMissing, CbtUnrelated
from holdfast.lab.disks.granules import granules_of
from holdfast.model import DiskUuid

__all__ = ["changed_blocks", "check_log", "fold", "hand_over", "start", "stop"]


def start(catalog: Catalog, disk: Disk) -> None:
    """Track writes to ``disk`` from now on; a disk that is tracked already keeps its log."""
    if disk.log is None:
        disk.log = catalog.new_log(size_bytes=disk.size_bytes)


def stop(catalog: Catalog, disk: Disk) -> None:
    """Forget the log of ``disk``; those before it lose their successor, those after it their predecessor."""
    if disk.log is None:
        return
    before, after = _neighbour(catalog, disk.log.parent), _neighbour(catalog, disk.log.child)
    if before is not None and before.log is not None:
        before.log.child = None
    if after is not None and after.log is not None:
        after.log.parent = None
    disk.log = None


def hand_over(catalog: Catalog, disk: Disk, *, snapshot: Disk) -> None:
    """Give the log of ``disk`` to its new snapshot and let ``disk`` start an empty one behind it."""
    if disk.log is None:
        return
    snapshot.log, disk.log = disk.log, catalog.new_log(size_bytes=disk.size_bytes)
    before = _neighbour(catalog, snapshot.log.parent)
    if before is not None and before.log is not None:
        before.log.child = snapshot.uuid
    # What came after the disk comes after it still: a snapshot of a snapshot is put into the chain before it.
    disk.log.parent, disk.log.child = snapshot.uuid, snapshot.log.child
    snapshot.log.child = disk.uuid
    # The storage manager keeps a doubt with the live disk, where the next use looks for it, and trusts the snapshot's.
    disk.log.is_consistent, snapshot.log.is_consistent = snapshot.log.is_consistent, True


def fold(catalog: Catalog, disk: Disk) -> None:
    """Take ``disk`` out of the chain without losing a change: its log is added to the one after it.

    The caller holds the catalog's lock, which comes before the lock of the disk after it.
    """
    if disk.log is None:
        return
    before, after = _neighbour(catalog, disk.log.parent), _neighbour(catalog, disk.log.child)
    if after is not None and after.log is not None:
        mine = disk.log.changed.values()
        if mine is not None:
            with after.lock:
                theirs = after.log.changed.values()
                merged = np.zeros(after.log.changed.granules, dtype=np.uint8)
                held = mine[: len(merged)]  # the disk may have grown beyond the one after it
                merged[: len(held)] = held
                after.log.changed.replace(merged if theirs is None else merged | theirs)
        after.log.parent = disk.log.parent
    if before is not None and before.log is not None:
        before.log.child = disk.log.child
    disk.log = None


def changed_blocks(catalog: Catalog, source: Disk, *, target: Disk) -> NDArray[np.bool_]:
    """Return for each granule of ``target`` whether it was written after ``source``.

    ``CbtLogMissing`` when one of them has no log, ``CbtUnrelated`` when the chain does not lead from one to the other.
    """
    check_log(source)
    check_log(target)
    changed = np.zeros(granules_of(target.size_bytes), dtype=np.bool_)
    current = source
    for _ in range(len(catalog.disks)):
        following = _neighbour(catalog, current.log.child) if current.log is not None else None
        if following is None or following.log is None:
            break
        values = following.log.changed.values()
        if values is not None:
            length = min(len(values), len(changed))
            changed[:length] |= values[:length] != 0
        if following is target:
            return changed
        current = following
    raise CbtUnrelated(disk=source.uuid, target=target.uuid)


def check_log(disk: Disk) -> None:
    """Return when the disk has a change log; ``CbtLogMissing`` otherwise."""
    if disk.log is None:
        raise CbtLogMissing(disk=disk.uuid)


def _neighbour(catalog: Catalog, uuid: DiskUuid | None) -> Disk | None:
    return None if uuid is None else catalog.disks.get(uuid)
