"""The list of what a damaged disk has lost: exact, ascending, and no longer than it has to be."""

from __future__ import annotations

from holdfast.core import BLOCK_BYTES
from holdfast.repository import MapDamaged, MissingExtent, MissingLog, ObjectDamaged, PackDamaged, PackMissing
from holdfast.repository.damage import Damage
from holdfast.repository.layout import PackId, pack_key

ONE, TWO = PackId(bytes([1]) * 16), PackId(bytes([2]) * 16)
DISK_BYTES = 20 * BLOCK_BYTES + 512


def log_of(*lost: tuple[int, int, Damage]) -> list[MissingExtent]:
    log = MissingLog()
    for first, count, damage in lost:
        log.add(first, count, damage, disk_bytes=DISK_BYTES)
    return list(log.extents())


def test_neighbours_with_one_cause_are_one_extent_whatever_their_order() -> None:
    gone = PackMissing(pack=ONE)
    (extent,) = log_of((4, 1, gone), (3, 1, gone), (5, 2, gone))
    assert (extent.offset_bytes, extent.end_bytes) == (3 * BLOCK_BYTES, 7 * BLOCK_BYTES)
    assert (extent.object, extent.slot, extent.reason) == (pack_key(ONE), None, "it is missing")


def test_other_causes_and_gaps_keep_extents_apart() -> None:
    flipped = [PackDamaged(pack=ONE, slot=slot, reason="flipped") for slot in (1, 2)]
    found = log_of((0, 1, flipped[0]), (1, 1, flipped[1]), (2, 1, PackMissing(pack=TWO)), (4, 1, PackMissing(pack=TWO)))
    assert [each.offset_bytes // BLOCK_BYTES for each in found] == [0, 1, 2, 4]
    assert [each.slot for each in found] == [1, 2, None, None]


def test_the_last_extent_ends_with_the_disk() -> None:
    (extent,) = log_of((19, 2, PackMissing(pack=ONE)))
    assert extent.end_bytes == DISK_BYTES


def test_every_kind_of_damage_names_its_object() -> None:
    found = log_of(
        (0, 1, MapDamaged(pack=ONE, slot=3, reason="odd")), (5, 1, ObjectDamaged(key="moved/x", reason="torn"))
    )
    assert [(each.object, each.slot, each.reason) for each in found] == [
        (pack_key(ONE), 3, "odd"),
        ("moved/x", None, "torn"),
    ]
