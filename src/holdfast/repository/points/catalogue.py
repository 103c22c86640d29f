"""Catalogues: what a listing shows of many points, in few objects, so that listing 100,000 points reads none of them.

Invariant: a catalogue is a cache. A row counts only for a point that the store lists under the row's name and length;
whatever no row describes is read itself. So losing a catalogue costs time and changes no listing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from holdfast.core import format_time, from_msgpack, parse_time
from holdfast.model import ChangeSource, Consistency, DiskUuid, FourSizes, PointId, PoolUuid, RunId, VmIdentity, VmUuid
from holdfast.repository.damage import PointDamaged
from holdfast.repository.layout import CATALOGUE_PREFIX, POINTS_PREFIX, ObjectKind
from holdfast.repository.points.point import RestorePoint, read_each
from holdfast.repository.records.sealed import each_record
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = [
    "DiskSummary",
    "PointSummary",
    "SummaryListing",
    "list_summaries",
    "summary_of",
    "tidy_catalogue",
    "write_catalogue",
]

_CATALOGUES_MAX = 32
"""More small ones than this are merged: a listing reads each."""

_MERGED_ROWS_MAX = 16_384
"""A catalogue of so many points (about a megabyte) is left as it is."""


class DiskSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a listing shows of one disk. The order of the fields is the stored one."""

    uuid: DiskUuid
    name: str
    position: str
    size_bytes: int
    change_source_text: str
    change_reason: str
    four_sizes: tuple[int, int, int, int]

    @property
    def change_source(self) -> ChangeSource:
        """Where the knowledge of what to read came from."""
        return ChangeSource(self.change_source_text)

    @property
    def sizes(self) -> FourSizes:
        """The four sizes."""
        return _four_sizes(self.four_sizes)


class PointSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a listing shows of one restore point. The order of the fields is the stored one."""

    key: str
    """The name of the point's object."""
    length_bytes: int
    """The length of that object."""
    published_text: str
    taken_text: str
    vm_uuid: VmUuid
    vm_name: str
    pool_uuid: PoolUuid
    pool_name: str
    run: RunId
    job: str
    consistency_text: str
    previous: PointId | None
    tags: tuple[str, ...]
    disks: tuple[DiskSummary, ...]

    @property
    def id(self) -> PointId:
        """The point's id."""
        return PointId(self.key.rpartition("/")[2])

    @property
    def vm(self) -> VmIdentity:
        """The VM, as it was called then."""
        return VmIdentity(uuid=self.vm_uuid, name=self.vm_name, pool=self.pool_uuid, pool_name=self.pool_name)

    @property
    def published_at(self) -> datetime:
        """When the point was published, by its writer's clock."""
        return parse_time(self.published_text)

    @property
    def taken_at(self) -> datetime:
        """When the snapshot was taken."""
        return parse_time(self.taken_text)

    @property
    def consistency(self) -> Consistency:
        """How the guest was treated."""
        return Consistency(self.consistency_text)

    @property
    def sizes(self) -> FourSizes:
        """The four sizes of all disks together."""
        return _four_sizes(tuple(sum(each) for each in zip(*(disk.four_sizes for disk in self.disks), strict=True)))


class _CatalogueRecord(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[PointSummary, ...]


@dataclass(frozen=True, slots=True)
class SummaryListing:
    """All points that were found, oldest first, and what could not be read."""

    points: tuple[PointSummary, ...]
    damaged: tuple[PointDamaged, ...]


@dataclass(frozen=True, slots=True)
class _Catalogue:
    key: str
    rows: tuple[PointSummary, ...]


def summary_of(point: RestorePoint, *, length_bytes: int = 0) -> PointSummary:
    """Return what a listing shows of a point. The length of its object is needed only where the summary is stored."""
    facts = point.facts
    return PointSummary(
        key=point.key,
        length_bytes=length_bytes,
        published_text=format_time(point.published_at),
        taken_text=format_time(facts.taken_at),
        vm_uuid=facts.vm.uuid,
        vm_name=facts.vm.name,
        pool_uuid=facts.vm.pool,
        pool_name=facts.vm.pool_name,
        run=facts.run,
        job=facts.job,
        consistency_text=facts.consistency.value,
        previous=facts.previous,
        tags=facts.tags,
        disks=tuple(
            DiskSummary(
                uuid=disk.facts.uuid,
                name=disk.facts.name,
                position=disk.facts.position,
                size_bytes=disk.facts.size_bytes,
                change_source_text=disk.facts.change_source.value,
                change_reason=disk.facts.change_reason,
                four_sizes=_numbers(disk.stored.sizes),
            )
            for disk in point.disks
        ),
    )


def list_summaries(vault: Vault, *, workers: int = 0) -> SummaryListing:
    """Return what a listing shows, oldest first; the points that cannot be read apart."""
    catalogues, _ = _read_catalogues(vault)
    found, damaged = _summaries(vault, catalogues, workers=workers)
    return SummaryListing(tuple(_oldest_first(found)), tuple(damaged))


def write_catalogue(vault: Vault, points: Sequence[RestorePoint]) -> None:
    """Store a catalogue of points that have just been published."""
    rows = []
    for point in points:
        try:
            rows.append(summary_of(point, length_bytes=vault.store.size(point.key)))
        except ObjectMissing:
            continue
    if rows:
        _write(vault, rows)


def tidy_catalogue(vault: Vault, *, workers: int = 0) -> None:
    """Make every point described, by few catalogues, and drop those that are damaged or describe nothing."""
    catalogues, damaged = _read_catalogues(vault)
    listed = {info.key for info in vault.names(POINTS_PREFIX)}
    small = [each for each in catalogues if len(each.rows) < _MERGED_ROWS_MAX]
    useless = [each for each in catalogues if not any(row.key in listed for row in each.rows)]
    replaced = {each.key for each in (small if len(small) > _CATALOGUES_MAX else useless)}
    kept = [each for each in catalogues if each.key not in replaced]
    described = {row.key for each in kept for row in each.rows}
    found, _ = _summaries(vault, catalogues, workers=workers)
    rows = [row for row in found if row.key not in described]
    for first in range(0, len(rows), _MERGED_ROWS_MAX):
        _write(vault, rows[first : first + _MERGED_ROWS_MAX])
    for key in [*damaged, *replaced]:
        vault.store.delete(key)


def _oldest_first(points: Sequence[PointSummary]) -> list[PointSummary]:
    """Return the points by age: when they were taken, which was not after their publication, whatever a clock said.

    Times are whole seconds; within one, a point is younger than the one it was read against.
    """

    def moment(point: PointSummary) -> tuple[str, str]:
        # Times of this form sort as text.
        return min(point.taken_text, point.published_text), point.published_text

    ordered: list[PointSummary] = []
    for _, group in itertools.groupby(sorted(points, key=moment), key=moment):
        equals = list(group)
        ordered += equals if len(equals) == 1 else _followers_last(equals)
    return ordered


def _followers_last(points: Sequence[PointSummary]) -> list[PointSummary]:
    """Return points of one moment so that each comes after the one it was read against."""
    by_id = {point.id: point for point in points}

    def steps(point: PointSummary) -> int:
        count = 0
        while count < len(points) and (before := by_id.get(point.previous or PointId(""))) is not None:
            count, point = count + 1, before
        return count

    return sorted(points, key=lambda point: (steps(point), point.key))


def _summaries(
    vault: Vault, catalogues: Iterable[_Catalogue], *, workers: int
) -> tuple[list[PointSummary], list[PointDamaged]]:
    lengths = {info.key: info.length_bytes for info in vault.names(POINTS_PREFIX)}
    found: list[PointSummary] = []
    for catalogue in catalogues:
        for row in catalogue.rows:
            if lengths.get(row.key) == row.length_bytes:
                found.append(row)
                del lengths[row.key]
    damaged: list[PointDamaged] = []
    undescribed = list(lengths)
    for key, point in zip(undescribed, read_each(vault, undescribed, workers=workers), strict=True):
        if isinstance(point, PointDamaged):
            damaged.append(point)
        elif point is not None:
            found.append(summary_of(point, length_bytes=lengths[key]))
    return found, damaged


def _read_catalogues(vault: Vault) -> tuple[list[_Catalogue], list[str]]:
    """Return all catalogues that can be read, oldest first, and the names of those that are damaged."""
    found, damaged = [], []
    for key, rows in each_record(vault, CATALOGUE_PREFIX, kind=ObjectKind.CATALOGUE, parse=_parse):
        if rows is None:
            damaged.append(key)
        else:
            found.append(_Catalogue(key, rows))
    return found, damaged


def _parse(payload: bytes) -> tuple[PointSummary, ...]:
    return from_msgpack(payload, _CatalogueRecord).rows


def _write(vault: Vault, rows: Sequence[PointSummary]) -> None:
    payload = msgspec.msgpack.encode(_CatalogueRecord(rows=tuple(rows)))
    vault.write(vault.fresh_name(CATALOGUE_PREFIX), payload, kind=ObjectKind.CATALOGUE)


def _numbers(sizes: FourSizes) -> tuple[int, int, int, int]:
    return sizes.provisioned_bytes, sizes.read_bytes, sizes.new_bytes, sizes.stored_bytes


def _four_sizes(numbers: tuple[int, ...]) -> FourSizes:
    provisioned, read, new, stored = numbers or (0, 0, 0, 0)
    return FourSizes(provisioned_bytes=provisioned, read_bytes=read, new_bytes=new, stored_bytes=stored)
