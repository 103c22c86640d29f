"""Points reach another repository whole, with little moved, whatever is interrupted, damaged or deleted meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core import BLOCK_BYTES, Cancellation, NoProgress
from holdfast.model import Coverage, DataRun, Origin, RunId, VmUuid
from holdfast.repository import RestorePoint
from holdfast.repository.layout import PACKS_PREFIX, pack_key
from holdfast.storage import Fault, FaultEffect, FaultyStore, MemoryStore, SimulatedCrash
from holdfast.upkeep import MirrorPlan, MirrorReport, MirrorToItself, apply_mirror, plan_mirror
from tests.support.repositories import World, disk_facts, image_of, write_whole

OTHER = VmUuid("22222222-aaaa-bbbb-cccc-000000000002")
COUNT = 40


@pytest.fixture
def source() -> World:
    return World(seed=1)


@pytest.fixture
def target() -> World:
    return World(seed=2)


def plan(source: World, target: World) -> MirrorPlan:
    return plan_mirror(source.repository, target.repository)


def mirror(source: World, target: World) -> MirrorReport:
    return apply_mirror(
        source.repository, target.repository, plan(source, target), progress=NoProgress(), cancel=Cancellation()
    )


def history(source: World) -> list[tuple[RestorePoint, bytes]]:
    """Back up one VM three times: whole, with changes, with changes that shrink what is used."""
    first = image_of({number: number + 1 for number in range(30)}, count=COUNT)
    points = [(source.back_up(first, run="r-1"), first)]
    second = image_of({number: number + 1 for number in range(30)} | {3: 901, 4: 902, 35: 903}, count=COUNT)
    reference = points[0][0].disks[0].stored
    points.append((source.back_up_changes(second, [3, 4, 35], run="r-2", reference=reference), second))
    third = image_of({number: number + 1 for number in range(20)} | {3: 901, 35: 904}, count=COUNT)
    reference = points[1][0].disks[0].stored
    points.append((source.back_up_changes(third, [4, *range(20, 36)], run="r-3", reference=reference), third))
    return points


def mirrored(target: World) -> dict[RunId, RestorePoint]:
    return {point.facts.run: point for point in target.repository.points()}


def check_equal(target: World, points: list[tuple[RestorePoint, bytes]]) -> None:
    found = mirrored(target)
    assert set(found) == {point.facts.run for point, _ in points}
    for point, image in points:
        assert target.restore(found[point.facts.run]) == image
    assert target.verify().is_sound


def test_every_point_arrives_whole_and_says_where_it_came_from(source: World, target: World) -> None:
    points = history(source)
    report = mirror(source, target)
    assert (len(report.sent), report.failed, report.gone) == (3, (), ())
    check_equal(target, points)
    for point, _ in points:
        copy = mirrored(target)[point.facts.run]
        assert copy.facts.origin == Origin(repository=source.repository.id, point=point.id)
        assert copy.facts.vm_record == point.facts.vm_record
        assert (copy.facts.taken_at, copy.facts.vm, copy.facts.job) == (
            point.facts.taken_at,
            point.facts.vm,
            point.facts.job,
        )
        assert copy.disks[0].facts.reference is None


def test_an_increment_moves_an_increment(source: World, target: World) -> None:
    history(source)
    mirror(source, target)
    by_run = mirrored(target)
    assert by_run[RunId("r-1")].sizes.read_bytes >= 30 * BLOCK_BYTES
    assert by_run[RunId("r-2")].sizes.read_bytes == 3 * BLOCK_BYTES
    assert by_run[RunId("r-3")].sizes.read_bytes == 2 * BLOCK_BYTES
    assert by_run[RunId("r-2")].facts.previous == by_run[RunId("r-1")].id


def test_a_second_mirror_has_nothing_to_do_and_stores_nothing(source: World, target: World) -> None:
    history(source)
    mirror(source, target)
    again = plan(source, target)
    assert (again.missing, again.present) == ((), 3)
    before = target.memory.snapshot()
    assert mirror(source, target).sent == ()
    assert target.memory.snapshot() == before


def test_blocks_that_the_target_has_from_another_vm_are_not_stored_again(source: World, target: World) -> None:
    image = image_of({number: 2 * number + 2 for number in range(30)}, count=COUNT)
    source.back_up(image, run="r-1")
    mirror(source, target)
    before = sum(info.length_bytes for info in target.store.list(PACKS_PREFIX))
    source.back_up(image, run="r-2", vm=OTHER)
    report = mirror(source, target)
    grown = sum(info.length_bytes for info in target.store.list(PACKS_PREFIX)) - before
    assert (report.sizes.new_bytes, grown < BLOCK_BYTES) == (0, True)


def test_only_chosen_vms_and_the_newest_points_are_sent(source: World, target: World) -> None:
    points = history(source)
    source.back_up(image_of({0: 5}, count=3), run="r-9", vm=OTHER)
    chosen = plan_mirror(source.repository, target.repository, vms=[OTHER])
    assert [each.run for each in chosen.missing] == ["r-9"]
    chosen = plan_mirror(source.repository, target.repository, vms=[points[0][0].facts.vm.uuid], newest=1)
    assert [each.run for each in chosen.missing] == ["r-3"]
    assert "send 1 points" in chosen.explain()


@pytest.mark.parametrize("resize", [lambda count: count + 7, lambda count: count - 12])
def test_a_disk_that_was_resized_arrives_whole(source: World, target: World, resize: Callable[[int], int]) -> None:
    first = image_of({number: number + 1 for number in range(30)}, count=COUNT)
    second = image_of({number: number + 2 for number in range(20)}, count=resize(COUNT), tail_bytes=512)
    points = [(source.back_up(first, run="r-1"), first), (source.back_up(second, run="r-2"), second)]
    mirror(source, target)
    check_equal(target, points)


def test_disks_that_come_and_go_are_told_apart_by_their_uuid(source: World, target: World) -> None:
    images = [image_of({0: 11, 1: 12}, count=4), image_of({0: 21, 3: 22}, count=4)]
    with source.begin("r-1") as writer:
        stored = [write_whole(writer, image) for image in images]
        names = [disk_facts(len(images[0]), name="one"), disk_facts(len(images[1]), name="two")]
        writer.publish(source.facts("r-1"), list(zip(names, stored, strict=True)))
    with source.begin("r-2") as writer:
        writer.publish(source.facts("r-2"), [(names[1], stored[1])])
    mirror(source, target)
    found = mirrored(target)
    assert [target.restore(found[RunId("r-1")], disk=number) for number in (0, 1)] == images
    assert target.restore(found[RunId("r-2")]) == images[1]


def test_a_repository_is_not_mirrored_into_itself(source: World) -> None:
    with pytest.raises(MirrorToItself):
        plan(source, source)


def test_a_damaged_point_stops_itself_and_no_other(source: World, target: World) -> None:
    points = history(source)
    other = image_of({0: 5}, count=3)
    points.append((source.back_up(other, run="r-9", vm=OTHER), other))
    damaged = next(iter({*points[1][0].disks[0].stored.packs.packs} - {*points[0][0].disks[0].stored.packs.packs}))
    state = dict(source.memory.snapshot())
    key = pack_key(damaged)
    state[key] = state[key][:60] + bytes([state[key][60] ^ 1]) + state[key][61:]
    source.memory.restore(state)
    source.reopen()
    report = mirror(source, target)
    assert points[1][0].id in {each.point for each in report.failed}
    sound = [pair for pair in points if pair[0].id not in {each.point for each in report.failed}]
    assert {points[0][0].id, points[3][0].id} <= {pair[0].id for pair in sound}
    check_equal(target, sound)


def test_a_point_that_is_deleted_meanwhile_is_no_damage(source: World, target: World) -> None:
    points = history(source)
    planned = plan(source, target)
    source.repository.delete_point(points[2][0].id)
    report = apply_mirror(source.repository, target.repository, planned, progress=NoProgress(), cancel=Cancellation())
    assert (report.gone, report.failed) == ((points[2][0].id,), ())
    check_equal(target, points[:2])


def test_what_the_target_has_of_an_older_point_may_be_damaged(source: World, target: World) -> None:
    points = history(source)
    source.repository.delete_point(points[2][0].id)
    mirror(source, target)
    state = dict(target.memory.snapshot())
    for info in list(target.memory.list(PACKS_PREFIX)):
        state[info.key] = state[info.key][:-1]
    target.memory.restore(state)
    target.reopen()
    target.verify()
    image = image_of({number: number + 1 for number in range(30)} | {7: 77}, count=COUNT)
    made = source.back_up_changes(image, [7, 3, 4, 35], run="r-7", reference=points[1][0].disks[0].stored)
    report = mirror(source, target)
    assert len(report.sent) == 1
    assert target.restore(mirrored(target)[made.facts.run]) == image


def test_a_mirror_that_dies_anywhere_goes_on_and_ends_complete(source: World) -> None:
    points = history(source)
    quiet = World(seed=2)
    mirror(source, quiet)
    memory = MemoryStore()
    counted = FaultyStore(memory)
    World(counted, memory=memory, seed=3)
    step = 0
    at = 3
    while True:
        memory = MemoryStore()
        target = World(memory, seed=3)
        faulty = FaultyStore(memory, [Fault(at=at, effect=FaultEffect.CRASH_AFTER)])
        target.store = faulty
        try:
            target.reopen()
            mirror(source, target)
            break
        except SimulatedCrash:
            target.store = memory
            target.reopen()
            report = mirror(source, target)
            assert report.failed == ()
            check_equal(target, points)
            stored = sum(info.length_bytes for info in memory.list(PACKS_PREFIX))
            once = sum(info.length_bytes for info in quiet.memory.list(PACKS_PREFIX))
            assert stored <= once * 1.5
        step += 1
        at += 3
    assert step > 5


def test_a_changed_range_is_told_without_reading_a_block(source: World) -> None:
    points = history(source)
    older, newer = points[0][0].disks[0].stored, points[2][0].disks[0].stored
    with source.repository.changes(older, newer, cancel=Cancellation()) as reader:
        assert reader.coverage is Coverage.CHANGES
        runs = list(reader.runs())
        assert reader.planned_bytes == sum(run.length_bytes for run in runs if isinstance(run, DataRun))
    touched = {
        block
        for run in runs
        for block in range(run.offset_bytes // BLOCK_BYTES, (run.offset_bytes + run.length_bytes) // BLOCK_BYTES)
    }
    # Block 4 has its first content again, which may or may not lie in its first place.
    assert touched - {4} == {3, *range(20, 30), 35}


def test_points_that_are_damaged_in_the_target_are_told_and_sent_again_once_deleted(
    source: World, target: World
) -> None:
    points = history(source)
    mirror(source, target)
    assert plan(source, target).damaged == ()
    there = {each.id for each in target.repository.points()}
    (lost,) = {pack_key(pack) for pack, _ in mirrored(target)[RunId("r-1")].packs()}
    target.memory.delete(lost)
    target.reopen()
    target.verify()
    planned = plan(source, target)
    assert (planned.missing, planned.present, set(planned.damaged)) == ((), 3, there)
    assert planned.explain() == "3 points are there already, 3 of them damaged"
    for point in planned.damaged:
        target.repository.delete_point(point)
    assert mirror(source, target).failed == ()
    check_equal(target, points)
    assert plan(source, target).damaged == ()


def test_a_point_that_only_has_the_same_run_id_is_not_built_upon(source: World, target: World) -> None:
    points = history(source)
    target.clock.advance(7)
    other = image_of({number: 2000 + number for number in range(30)}, count=COUNT)
    target.back_up(other, run="r-1")
    mirror(source, target)
    found = mirrored(target)
    assert target.restore(found[RunId("r-1")]) == other
    for point, image in points[1:]:
        assert target.restore(found[point.facts.run]) == image
