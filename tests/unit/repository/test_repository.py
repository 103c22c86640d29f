"""The engine as its users see it: what goes in comes out, whole, from any point."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, Cancellation, Cancelled
from holdfast.model import Coverage, DataRun, DiskUuid, PointId, VmUuid
from holdfast.repository import (
    Compression,
    NotARepository,
    OpenHolder,
    PlaceNotEmpty,
    PointAmbiguous,
    PointUnknown,
    RepositoryExists,
    create_repository,
    open_repository,
)
from holdfast.repository.keys.keys import OpenUnlock
from holdfast.storage import MemoryStore
from tests.support.repositories import WEB, World, disk_facts, image_of, write_whole

OTHER = VmUuid("22222222-aaaa-bbbb-cccc-000000000002")


def test_a_disk_comes_back_bit_identical() -> None:
    world = World()
    image = image_of({0: 1, 1: 2, 3: 1, 7: 4}, count=9, tail_bytes=512)
    point = world.back_up(image, run="r-1")
    world.reopen()
    assert world.restore(world.repository.point(point.id)) == image
    assert world.verify().is_sound


def test_an_increment_restores_alone_and_its_reference_too() -> None:
    world = World()
    first = image_of({0: 1, 1: 2, 3: 1, 7: 4}, count=9, tail_bytes=512)
    second = image_of({0: 1, 1: 6, 4: 3, 7: 4}, count=9, tail_bytes=512)
    before = world.back_up(first, run="r-1")
    after = world.back_up_changes(second, [1, 3, 4], run="r-2", reference=before.disks[0].stored)
    world.reopen()
    assert [world.restore(point) for point in world.repository.points()] == [first, second]
    world.repository.delete_point(before.id)
    assert world.verify().is_sound
    world.collect()
    assert world.restore(after) == second
    assert world.verify().is_sound


contents = st.dictionaries(st.integers(0, 9), st.integers(0, 6), max_size=10)


@pytest.mark.slow(reason="each example backs up and restores a chain of points")
@given(disks=st.lists(contents, min_size=1, max_size=4), tail=st.sampled_from([0, 512, 4096]))
def test_any_chain_of_increments_restores_at_every_point(disks: list[dict[int, int]], tail: int) -> None:
    world = World()
    images = [image_of(disk, count=10, tail_bytes=tail) for disk in disks]
    point = world.back_up(images[0], run="r-0")
    for number, (before, after) in enumerate(itertools.pairwise(images), start=1):
        changed = [
            block
            for block in range(11 if tail else 10)
            if before[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            != after[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        ]
        stored = point.disks[0].stored
        point = world.back_up_changes(after, changed, run=f"r-{number}", reference=stored)
    world.reopen()
    assert [world.restore(each) for each in world.repository.points()] == images
    assert world.verify().damage == ()


def test_the_whole_record_of_a_vm_comes_back_with_fields_that_nobody_knows_yet() -> None:
    world = World()
    point = world.back_up(image_of({0: 1}, count=1), run="r-1")
    world.reopen()
    found = world.repository.point(point.id)
    assert found == point
    assert found.facts.vm_record["from_the_future"] == {"x": [1, 2.5, None]}
    assert found.facts.vm_metadata == b"tar"


def test_points_are_listed_oldest_first_and_by_vm() -> None:
    world = World()
    image = image_of({0: 1}, count=1)
    ids = [world.back_up(image, run=f"r-{number}", vm=vm).id for number, vm in enumerate([WEB, OTHER, WEB])]
    assert [point.id for point in world.repository.points()] == ids
    assert [point.id for point in world.repository.points(vm=WEB)] == [ids[0], ids[2]]


def test_a_point_is_found_by_the_beginning_of_its_id() -> None:
    world = World()
    image = image_of({0: 1}, count=1)
    first = world.back_up(image, run="r-1")
    world.back_up(image, run="r-2")
    assert world.repository.point(first.id[:-3]).id == first.id
    with pytest.raises(PointAmbiguous, match="2 restore points"):
        world.repository.point("2026")
    for unknown in ("2027", ""):
        with pytest.raises(PointUnknown):
            world.repository.point(unknown)


def test_deleting_a_point_that_is_not_there_says_so() -> None:
    with pytest.raises(PointUnknown):
        World().repository.delete_point(PointId("20260101T000000Z-00000000"))


def test_publishing_twice_yields_one_point() -> None:
    world = World()
    image = image_of({0: 1}, count=1)
    with world.begin("r-1") as writer:
        stored = write_whole(writer, image)
        first = writer.publish(world.facts("r-1"), [(disk_facts(len(image)), stored)])
        # The second time the clock has moved; the run and the VM are what counts.
        second = writer.publish(world.facts("r-1"), [(disk_facts(len(image)), stored)])
    assert first == second
    assert world.repository.points() == [first]


def test_a_repository_is_never_created_over_something() -> None:
    world = World()
    with pytest.raises(RepositoryExists):
        World(world.store)
    store = MemoryStore()
    store.put("notes.txt", b"mine")
    with pytest.raises(PlaceNotEmpty, match=r"notes\.txt"):
        World(store)
    assert store.get("notes.txt") == b"mine"


def test_a_place_without_a_repository_says_so() -> None:
    world = World()
    with pytest.raises(NotARepository):
        open_repository(MemoryStore(), unlock=OpenUnlock(), clock=world.clock, entropy=world.entropy)


def test_usage_adds_up_to_what_the_store_lists() -> None:
    world = World()
    world.back_up(image_of({0: 1, 2: 2}, count=3), run="r-1")
    world.store.put("stranger", b"123")
    usage = world.repository.usage()
    listed = list(world.store.list(""))
    assert usage.length_bytes == sum(info.length_bytes for info in listed)
    assert usage.objects == len(listed)
    assert {each.kind: each.objects for each in usage.kinds} == {
        "packs": 1,
        "points": 1,
        "indexes": 1,
        "catalogues": 1,
        "keys": 1,
        "description": 1,
        "other": 1,
    }


def test_harder_compression_restores_the_same() -> None:
    image = image_of({0: 1, 1: 2}, count=2)
    world = World()
    store = MemoryStore()
    world.repository = create_repository(
        store,
        holders=[OpenHolder()],
        clock=world.clock,
        entropy=world.entropy,
        compression=Compression.SMALL,
        workers=0,
    )
    point = world.back_up(image, run="r-1")
    assert world.restore(point) == image


def test_a_cancelled_backup_stops_and_publishes_nothing() -> None:
    world = World()
    with pytest.raises(Cancelled), world.begin("r-1") as writer:
        disk = writer.open_disk(BLOCK_BYTES, coverage=Coverage.WHOLE, reference=None)
        world.cancel.cancel()
        disk.write(DataRun(0, bytes(BLOCK_BYTES)))
    assert world.repository.points() == []


def test_a_cancelled_restore_stops() -> None:
    world = World()
    point = world.back_up(image_of({0: 1}, count=1), run="r-1")
    cancel = Cancellation()
    source = world.repository.source(point.disks[0].stored, cancel=cancel)
    cancel.cancel()
    with pytest.raises(Cancelled):
        source.read(0, 1)
    with pytest.raises(Cancelled):
        list(source.runs())


def test_a_vm_with_several_disks_is_one_point() -> None:
    world = World()
    images = [image_of({0: 1, 1: 2}, count=2), image_of({0: 3}, count=5)]
    with world.begin("r-1") as writer:
        disks = [
            (disk_facts(len(image), name=DiskUuid(f"disk {number}")), write_whole(writer, image))
            for number, image in enumerate(images)
        ]
        point = writer.publish(world.facts("r-1"), disks)
    assert [world.restore(point, disk=number) for number in range(2)] == images
    assert point.sizes.provisioned_bytes == 7 * BLOCK_BYTES
    assert world.verify().disks == 2
