"""Donors: where the content of damaged blocks can come from besides the repository itself.

They need not be right: healing compares what they give with the id of what was lost.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from holdfast.core import Cancellation
from holdfast.model import DiskSource, VmUuid
from holdfast.repository.damage import Damage
from holdfast.repository.points.point import PointDisk, RestorePoint
from holdfast.repository.reading.hits import Witness
from holdfast.repository.repository import Repository

__all__ = ["ImageDonor", "RepositoryDonor"]

_POINTS_ASKED_MAX = 3
"""Besides the same point: an older or newer one of the VM often has the same content at the same place."""

_SOURCES_OPEN_MAX = 8
"""Each holds the leaves and blocks that it read last, at most 17 MB."""


class ImageDonor:
    """A raw image of a disk, for every restore point of that disk. A context manager."""

    def __init__(self, path: str | os.PathLike[str], *, disk: str) -> None:
        """``disk`` is the uuid or the name of the disk that the image was taken from."""
        self._disk = disk
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self, witness: Witness) -> Iterator[bytes]:
        """See ``Donor``."""
        if self._disk in (witness.disk.facts.uuid, witness.disk.facts.name):
            yield os.pread(self._file, witness.extent.length_bytes, witness.extent.offset_bytes)

    def __enter__(self) -> ImageDonor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


class RepositoryDonor:
    """Another repository with points of the same VMs: a mirror, or what this one is a mirror of."""

    def __init__(self, repository: Repository, *, cancel: Cancellation) -> None:
        self._repository = repository
        self._cancel = cancel
        self._points: dict[VmUuid, list[RestorePoint]] = {}
        self._sources: OrderedDict[str, DiskSource | None] = OrderedDict()

    def __call__(self, witness: Witness) -> Iterator[bytes]:
        """See ``Donor``."""
        extent = witness.extent
        for point, disk in self._candidates(witness):
            source = self._source(point, disk)
            if source is not None and extent.offset_bytes + extent.length_bytes <= source.size_bytes:
                with contextlib.suppress(Damage):
                    yield source.read(extent.offset_bytes, extent.length_bytes)

    def _candidates(self, witness: Witness) -> Iterator[tuple[RestorePoint, PointDisk]]:
        """Yield the same disk of the same point, then of those taken shortly before or after."""
        wanted = witness.point.facts
        points = self._points_of(wanted.vm.uuid)
        nearest = sorted(points, key=lambda each: abs((each.facts.taken_at - wanted.taken_at).total_seconds()))
        for point in nearest[: _POINTS_ASKED_MAX + 1]:
            for disk in point.disks:
                if disk.facts.uuid == witness.disk.facts.uuid:
                    yield point, disk

    def _points_of(self, vm: VmUuid) -> Sequence[RestorePoint]:
        if vm not in self._points:
            self._points = {vm: self._repository.points(vm=vm)}
        return self._points[vm]

    def _source(self, point: RestorePoint, disk: PointDisk) -> DiskSource | None:
        """Return a disk for reading, None when its map is damaged there too; the last few stay open."""
        key = f"{point.key} {disk.facts.uuid}"
        if key not in self._sources:
            try:
                self._sources[key] = self._repository.source(disk.stored, cancel=self._cancel)
            except Damage:
                self._sources[key] = None
            if len(self._sources) > _SOURCES_OPEN_MAX:
                self._sources.popitem(last=False)
        self._sources.move_to_end(key)
        return self._sources[key]
