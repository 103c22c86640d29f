"""Locks: what a point needs is held at least as long as the point, whatever crashes, and asking costs little."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import ManualClock, NoProgress, Secret, limits
from holdfast.model import RunId
from holdfast.repository import (
    HolderHeld,
    LockDaysInvalid,
    NeedsNewerHoldfast,
    ObjectDamaged,
    PassphraseHolder,
    RestorePoint,
    StoredDisk,
    Verdict,
)
from holdfast.repository import repository as repository_module
from holdfast.repository.keys.holders import tidy_holders
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.lock_terms import LockTerms
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.moved import read_moves, write_moves
from holdfast.storage import (
    Fault,
    FaultEffect,
    FaultyStore,
    MemoryStore,
    MeteredStore,
    ObjectLocked,
    ObjectStore,
    SimulatedCrash,
    Verb,
)
from tests.support.hand_packs import data, put_pack
from tests.support.repositories import World, block_of, disk_facts, image_of, write_changes

DAY_S = 24 * 3600
DAYS = 20
IMAGE = image_of({number: number + 1 for number in range(12)}, count=12)
CHANGED = image_of({**{number: number + 1 for number in range(12)}, 3: 99}, count=12)


def lockable(*, days: int = DAYS, workers: int = 0) -> World:
    """Return a world whose store can lock, with a policy."""
    clock = ManualClock()
    world = World(memory=MemoryStore(clock=clock), clock=clock, workers=workers)
    if days:
        set_days(world, days)
    return world


def set_days(world: World, days: int) -> int:
    return world.repository.protection.set_days(days, progress=NoProgress(), cancel=world.cancel).held_points


def needed_keys(point: RestorePoint) -> set[str]:
    return {pack_key(pack) for pack, _ in point.packs()}


def lock_of(store: ObjectStore, key: str) -> datetime:
    until = store.locked_until(key)
    assert until is not None, f"{key} is not locked"
    return until


def check_points_are_covered(world: World) -> None:
    """Every locked point's packs, and what opens the repository, are locked at least as long as the point."""
    for point in world.repository.points():
        until = world.memory.locked_until(point.key)
        if until is not None:
            for key in (*needed_keys(point), "holdfast.json", "keys/open.json"):
                assert lock_of(world.memory, key) >= until, f"{key} ends before {point.id}"


def back_up_increment(world: World, before: StoredDisk, *, run: str, previous: RestorePoint | None) -> RestorePoint:
    """Back up one changed block, on top of a point, as the flow does."""
    with world.begin(run) as writer:
        stored = write_changes(writer, CHANGED, [3], reference=before)
        facts = replace(world.facts(run), previous=previous.id if previous else None)
        return writer.publish(facts, [(disk_facts(len(CHANGED)), stored)])


@given(days=st.integers(1, 3650), seconds=st.integers(0, 400 * DAY_S), micro=st.integers(0, 999_999))
def test_a_pack_stored_within_a_day_before_its_point_is_held_longer_than_the_point(
    days: int, seconds: int, micro: int
) -> None:
    terms = LockTerms(days)
    stored_at = ManualClock().now() + timedelta(seconds=seconds, microseconds=micro)
    published_at = stored_at + timedelta(days=1)
    assert terms.horizon(stored_at) >= terms.enough(published_at) >= terms.point_until(published_at)
    assert terms.horizon(stored_at) - stored_at <= timedelta(days=days + 3 + terms.step_days)


def test_a_new_point_and_its_packs_are_locked_and_what_changes_is_not() -> None:
    world = lockable()
    point = world.back_up(IMAGE, run="r-1")
    assert lock_of(world.memory, point.key) >= world.clock.now() + timedelta(days=DAYS) - timedelta(minutes=1)
    check_points_are_covered(world)
    for prefix in ("leases/", "condemned/", "index/", "catalogue/", "quarantine/", "proofs/"):
        assert all(world.memory.locked_until(key) is None for key in world.keys(prefix)), prefix
    with pytest.raises(ObjectLocked):
        world.repository.delete_point(point.id)
    with pytest.raises(ObjectLocked):
        world.memory.delete(sorted(needed_keys(point))[0])


def test_a_pack_that_a_newer_point_uses_again_is_held_as_long_as_that_point() -> None:
    world = lockable()
    first = world.back_up(IMAGE, run="r-1")
    for number in range(2, 9):
        world.clock.advance(7 * DAY_S)
        newer = back_up_increment(world, first.disks[0].stored, run=f"r-{number}", previous=first)
        assert needed_keys(first) & needed_keys(newer), "the increment builds on old packs"
        check_points_are_covered(world)
    assert world.memory.locked_until(first.key) is None, "an old point is let go when its time is over"


def test_a_point_can_be_deleted_when_its_days_are_over_and_its_packs_follow() -> None:
    world = lockable()
    point = world.back_up(IMAGE, run="r-1")
    world.clock.advance(DAYS * DAY_S + 1)
    world.repository.delete_point(point.id)
    world.clock.advance((3 + LockTerms(DAYS).step_days) * DAY_S)
    assert world.collect() > 0
    assert world.keys("packs/") == []


@pytest.mark.parametrize("workers", [0, 2])
def test_locks_that_are_long_enough_are_not_asked_for_again(workers: int) -> None:
    world = lockable(workers=workers)
    before = world.back_up(IMAGE, run="r-1")
    metered = MeteredStore(world.memory)
    world.store = metered
    requests = []
    for number in range(2, 12):
        world.reopen()
        world.clock.advance(DAY_S)
        asked = metered.meters()[Verb.LOCK].requests
        before = back_up_increment(world, before.disks[0].stored, run=f"r-{number}", previous=before)
        requests.append(metered.meters()[Verb.LOCK].requests - asked)
        check_points_are_covered(world)
    quiet = sorted(requests)[: len(requests) // 2]
    fixtures = 4
    assert max(quiet) <= 3 + 1 + fixtures, f"a few samples, one trial, the keys: {requests}"


def test_copied_objects_that_lost_their_locks_are_locked_anew() -> None:
    world = lockable()
    first = world.back_up(IMAGE, run="r-1")
    copy = MemoryStore(clock=world.clock)
    copy.restore(world.memory.snapshot())
    world.memory = world.store = copy
    world.reopen()
    second = back_up_increment(world, first.disks[0].stored, run="r-2", previous=first)
    assert copy.locked_until(second.key) is not None
    check_points_are_covered(world)


@pytest.mark.parametrize("effect", [FaultEffect.CRASH_BEFORE, FaultEffect.CRASH_AFTER])
def test_a_crash_at_any_operation_never_leaves_a_point_that_outlives_its_packs(effect: FaultEffect) -> None:
    at = 0
    while True:
        at += 1
        world = lockable()
        first = world.back_up(IMAGE, run="r-1")
        world.clock.advance(15 * DAY_S)
        faulty = FaultyStore(world.memory, [Fault(at=at, effect=effect)])
        world.store = faulty
        try:
            world.reopen()
            back_up_increment(world, first.disks[0].stored, run="r-2", previous=first)
        except SimulatedCrash:
            assert faulty.is_dead
        world.store = world.memory
        world.reopen()
        check_points_are_covered(world)
        back_up_increment(world, first.disks[0].stored, run="r-2", previous=first)
        check_points_are_covered(world)
        assert len(world.repository.points()) == 2
        if not faulty.is_dead:
            break
    assert at > 20, "the run has that many operations"


def test_setting_a_policy_locks_what_is_there_and_every_machine_keeps_to_it() -> None:
    world = lockable(days=0)
    old = world.back_up(IMAGE, run="r-1")
    assert world.memory.locked_until(old.key) is None
    assert set_days(world, DAYS) == 1
    check_points_are_covered(world)
    assert world.memory.locked_until(old.key) is not None
    world.reopen()
    assert world.memory.locked_until(world.back_up(CHANGED, run="r-2").key) is not None


def test_the_newest_policy_counts_and_none_shortens_a_lock() -> None:
    world = lockable()
    point = world.back_up(IMAGE, run="r-1")
    until = lock_of(world.memory, point.key)
    set_days(world, 5)
    assert lock_of(world.memory, point.key) == until
    second = world.back_up(CHANGED, run="r-2")
    assert lock_of(world.memory, second.key) < until
    set_days(world, 0)
    assert world.memory.locked_until(world.back_up(IMAGE, run="r-3").key) is None
    assert world.repository.protection.prove().verdict is Verdict.NOT_ASKED_FOR


def test_an_older_policy_that_is_put_back_changes_nothing() -> None:
    world = lockable(days=3)
    old = {key: world.memory.get(key) for key in world.keys("immutability/")}
    set_days(world, DAYS)
    world.memory.restore({**world.memory.snapshot(), **old})
    policy = world.repository.protection.policy()
    assert policy is not None
    assert policy.days == DAYS


def test_a_damaged_policy_never_makes_locks_shorter() -> None:
    world = lockable(days=DAYS)
    set_days(world, 3)
    newest = world.keys("immutability/")[-1]
    world.memory.restore({**world.memory.snapshot(), newest: b"rubbish"})
    policy = world.repository.protection.policy()
    assert policy is not None
    assert policy.days == DAYS
    world.memory.restore({**world.memory.snapshot(), **dict.fromkeys(world.keys("immutability/"), b"rubbish")})
    with pytest.raises(ObjectDamaged):
        world.begin("r-2")


@pytest.mark.parametrize("days", [-1, 3651])
def test_days_that_nobody_can_mean_are_refused(days: int) -> None:
    world = lockable(days=0)
    with pytest.raises(LockDaysInvalid, match=str(days)):
        set_days(world, days)
    assert world.keys("immutability/") == []


def test_a_version_that_knows_no_locks_does_not_write_into_an_immutable_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = lockable()
    monkeypatch.setattr(repository_module, "unknown_write_flags", lambda store, config: ["immutability"])
    with pytest.raises(NeedsNewerHoldfast):
        world.begin("r-1")


def test_a_store_that_cannot_lock_still_takes_backups_and_is_never_called_protected() -> None:
    world = World()
    set_days(world, DAYS)
    point = world.back_up(IMAGE, run="r-1")
    assert point.packs_held_until is None
    report = world.repository.protection.prove()
    assert report.verdict is Verdict.NOT_PROTECTED
    assert "cannot hold" in report.reason
    assert world.keys("canary/") == []


def test_a_trial_says_protected_only_after_a_refusal() -> None:
    world = lockable()
    point = world.back_up(IMAGE, run="r-1")
    report = world.repository.protection.prove()
    assert report.verdict is Verdict.PROTECTED
    assert [each.point for each in report.newest] == [point.id]
    assert report.held_until == lock_of(world.memory, point.key)
    assert report.tried_at == world.clock.now()
    canaries = world.keys("canary/")
    assert world.repository.protection.prove().verdict is Verdict.PROTECTED
    assert world.keys("canary/") == canaries, "one canary serves many trials"


class LyingStore(MemoryStore):
    """Says that it locks, and deletes all the same."""

    def delete(self, key: str) -> None:
        self._locks.pop(key, None)
        super().delete(key)


def test_a_store_that_promises_and_deletes_is_found_out() -> None:
    clock = ManualClock()
    world = World(memory=LyingStore(clock=clock), clock=clock)
    set_days(world, DAYS)
    report = world.repository.protection.prove()
    assert report.verdict is Verdict.NOT_PROTECTED
    assert "deleted it" in report.reason


class PromisingStore(MemoryStore):
    """Takes orders for locks that nobody carries out, as a folder whose keeper has died."""

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        return until

    def locked_until(self, key: str) -> datetime | None:
        return None


def test_a_keeper_that_never_comes_is_told_after_an_hour() -> None:
    world = World(memory=PromisingStore())
    set_days(world, DAYS)
    assert world.repository.protection.prove().verdict is Verdict.PENDING
    world.clock.advance(3700)
    report = world.repository.protection.prove()
    assert report.verdict is Verdict.NOT_PROTECTED
    assert "no keeper" in report.reason


def test_points_without_locks_are_not_called_protected() -> None:
    world = lockable(days=0)
    world.back_up(IMAGE, run="r-1")
    world.clock.advance(2 * 3600)
    set_days(world, DAYS)
    bare = MemoryStore(clock=world.clock)
    bare.restore(world.memory.snapshot())
    world.store = world.memory = bare
    report = world.reopen().protection.prove()
    assert report.verdict is Verdict.NOT_PROTECTED
    assert "newest points" in report.reason
    assert report.held_until is None


def test_a_point_with_a_pack_that_is_gone_is_named_when_a_policy_is_set() -> None:
    world = lockable(days=0)
    point = world.back_up(IMAGE, run="r-1")
    world.memory.delete(sorted(needed_keys(point))[0])
    report = world.repository.protection.set_days(DAYS, progress=NoProgress(), cancel=world.cancel)
    assert report.not_held == (point.key,)


def test_a_run_remembers_locks_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOCKS_REMEMBERED_MAX", 1)
    world = lockable()
    with world.begin("r-1") as writer:
        locks = writer._session.locks
    world.back_up(IMAGE, run="r-2")
    first = world.repository.points()[0]
    locks.hold([pack for pack, _ in first.packs()], moves=read_moves(world.repository._vault))
    assert len(locks._until) == 1
    assert RunId("r-2") == first.facts.run


def test_a_holder_that_is_removed_is_refused_while_held_and_goes_afterwards_by_itself() -> None:
    world = lockable(days=0)
    world.repository.keys.add(PassphraseHolder("guest", Secret("a long enough passphrase")))
    set_days(world, DAYS)
    world.back_up(IMAGE, run="r-1")
    with pytest.raises(HolderHeld) as refusal:
        world.repository.keys.remove("guest")
    assert refusal.value.until is not None
    set_days(world, DAYS)
    for number in range(2, 9):
        world.clock.advance(5 * DAY_S)
        world.back_up(IMAGE, run=f"r-{number}")
    assert world.clock.now() > refusal.value.until, "and runs have not extended it"
    tidy_holders(world.repository._vault)
    assert [each.name for each in world.repository.keys.holders()] == ["open"]
    assert world.repository.protection.prove().verdict is Verdict.PROTECTED


def test_points_that_nothing_could_open_are_not_called_protected() -> None:
    world = lockable()
    world.back_up(IMAGE, run="r-1")
    for key in ("holdfast.json", "keys/open.json"):
        until = world.memory._locks.pop(key)
        report = world.repository.protection.prove()
        assert report.verdict is Verdict.NOT_PROTECTED
        assert "opens them" in report.reason
        world.memory._locks[key] = until


def test_collection_waits_for_locks_says_until_when_and_frees_the_space_afterwards() -> None:
    world = lockable()
    point = world.back_up(IMAGE, run="r-1")
    packs = len(world.keys("packs/"))
    world.clock.advance(DAYS * DAY_S + 1)
    world.repository.delete_point(point.id)
    until = lock_of(world.memory, sorted(needed_keys(point))[0])
    report = world.repository.apply_gc(world.repository.plan_gc(), cancel=world.cancel)
    assert (report.deleted_packs, report.locked_packs, report.locked_until) == (0, packs, until)
    world.clock.advance((until - world.clock.now()).total_seconds() + 1)
    assert world.collect() == packs


def test_lives_of_points_with_locks_end_with_an_empty_store() -> None:
    world = lockable(days=2)
    points: list[RestorePoint] = []
    for number in range(12):
        image = image_of({block: 100 * number + block + 1 for block in range(number % 4, 12)}, count=12)
        points.append(world.back_up(image, run=f"r-{number}"))
        check_points_are_covered(world)
        world.clock.advance(DAY_S)
        for point in points[:-2]:
            try:
                world.repository.delete_point(point.id)
            except ObjectLocked:
                continue
            points.remove(point)
        world.collect()
        assert world.verify().damage == ()
    for point in points:
        assert world.restore(point)
    world.clock.advance(30 * DAY_S)
    for point in points:
        world.repository.delete_point(point.id)
    for _ in range(3):
        world.collect()
    assert world.keys("packs/") == []
    assert world.keys("moved/") == []


def test_packs_that_frames_were_moved_to_and_the_records_are_held_as_long_as_the_point() -> None:
    world = lockable()
    first = world.back_up(IMAGE, run="r-1")
    vault = world.repository._vault
    old = sorted(pack for pack, _ in first.packs())[0]
    new = put_pack(world.store, vault.keys, [data(vault.keys, block_of(1))], seed=77)
    world.memory._locks.pop(pack_key(new), None)
    needed = write_moves(vault, {NodeAddress(old, 0): NodeAddress(new, 0)})
    world.clock.advance(15 * DAY_S)
    world.reopen()
    second = back_up_increment(world, first.disks[0].stored, run="r-2", previous=first)
    for key in (pack_key(new), needed):
        assert lock_of(world.memory, key) >= lock_of(world.memory, second.key)


def test_a_moved_record_that_no_point_of_a_run_needs_is_left_to_end() -> None:
    world = lockable()
    first = world.back_up(IMAGE, run="r-1")
    vault = world.repository._vault
    places = [NodeAddress(PackId(bytes([number]) * 16), 0) for number in (1, 2)]
    record = write_moves(vault, {places[0]: places[1]})
    until = lock_of(world.memory, record)
    world.clock.advance(15 * DAY_S)
    back_up_increment(world, first.disks[0].stored, run="r-2", previous=first)
    assert lock_of(world.memory, record) == until


def test_a_point_tells_until_when_it_is_held_and_its_weakest_pack_counts() -> None:
    world = lockable()
    point = world.back_up(IMAGE, run="r-1")
    assert world.repository.protection.held_until(point) == lock_of(world.memory, point.key)
    world.memory._locks.pop(sorted(needed_keys(point))[0])
    assert world.repository.protection.held_until(point) is None
