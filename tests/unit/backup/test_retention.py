"""Retention never costs the newest point, nor the one that was made just now, whatever the clocks say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.backup import HeldBack, KeepInvalid, apply_retention, newest_first, newest_of, plan_retention
from holdfast.core import ManualClock
from holdfast.model import PointId
from holdfast.repository import RestorePoint
from holdfast.storage import MemoryStore
from tests.support.repositories import World, point_facts

START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2027, 1, 1, tzinfo=UTC)


def _point(number: int, *, taken: int | None = None, published: int | None = None, previous: int = 0) -> RestorePoint:
    """Return a point taken and published so many minutes after the start."""
    taken_at = START + timedelta(minutes=number if taken is None else taken)
    facts = replace(
        point_facts(f"r-{number}", taken_at=taken_at), previous=PointId(f"p-{previous}") if previous else None
    )
    published_at = START + timedelta(minutes=number if published is None else published)
    return RestorePoint(id=PointId(f"p-{number}"), key="", published_at=published_at, facts=facts, disks=())


def _kept(points: list[RestorePoint], keep: int, *, just_made: str | None = None, now: datetime = NOW) -> set[str]:
    plan = plan_retention(points, keep_points=keep, now=now, just_made=just_made)
    return {each.point.id for each in plan.decisions if each.keep}


def test_the_newest_stay_and_the_plan_says_why() -> None:
    plan = plan_retention([_point(1), _point(3), _point(2)], keep_points=2, now=NOW)
    assert plan.explain().splitlines() == [
        "keep p-3: number 1 of the newest 2",
        "keep p-2: number 2 of the newest 2",
        "drop p-1: older than the newest 2",
    ]


@given(
    minutes=st.lists(st.integers(0, 500), min_size=1, max_size=12, unique=True),
    keep=st.integers(1, 5),
)
def test_exactly_so_many_stay_and_they_are_the_newest(minutes: list[int], keep: int) -> None:
    points = [_point(number) for number in minutes]
    newest = sorted(minutes, reverse=True)[:keep]
    assert _kept(points, keep) == {f"p-{number}" for number in newest}


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_nothing_is_refused(keep: int) -> None:
    with pytest.raises(KeepInvalid):
        plan_retention([_point(1)], keep_points=keep, now=NOW)


def test_a_pool_clock_that_ran_ahead_does_not_cost_new_points() -> None:
    ahead = [_point(number, taken=number + 900_000) for number in (1, 2, 3)]
    assert _kept([*ahead, _point(4), _point(5)], 2) == {"p-4", "p-5"}


def test_a_pool_clock_that_runs_behind_does_not_cost_the_point_made_just_now() -> None:
    points = [_point(1), _point(2), _point(3, taken=-900_000)]
    assert _kept(points, 2, just_made="p-3") == {"p-1", "p-2", "p-3"}


def test_a_run_that_was_resumed_late_does_not_cost_the_newer_point() -> None:
    late = _point(3, taken=1, published=30)
    newer = _point(4, taken=20, published=20)
    assert _kept([late, newer], 1, just_made="p-3") == {"p-3", "p-4"}
    assert newest_of([late, newer]) is newer


def test_within_one_second_a_point_is_younger_than_the_one_it_was_read_against() -> None:
    chain = [_point(9, taken=1, published=1), _point(5, taken=1, published=1, previous=9)]
    chain.append(_point(7, taken=1, published=1, previous=5))
    assert [each.id for each in newest_first(chain)] == ["p-7", "p-5", "p-9"]
    assert newest_of([]) is None


def test_deleting_is_safe_twice() -> None:
    world = World()
    points = [world.back_up(b"x" * 65536, run=f"r-{number}") for number in range(3)]
    plan = plan_retention(points, keep_points=1, now=NOW)
    apply_retention(world.repository, plan)
    apply_retention(world.repository, plan)
    assert [each.id for each in world.repository.points()] == [points[-1].id]


@given(ahead=st.lists(st.integers(1, 10_000), min_size=1, max_size=8), keep=st.integers(1, 4))
def test_points_from_the_future_push_no_good_point_out(ahead: list[int], keep: int) -> None:
    good = [_point(number) for number in range(1, 7)]
    now = START + timedelta(minutes=10)
    future = [_point(100 + at, taken=30 + minutes) for at, minutes in enumerate(ahead)]
    future = [replace(each, published_at=each.facts.taken_at) for each in future]
    kept = _kept([*good, *future], keep, now=now)
    assert kept >= {f"p-{number}" for number in range(7 - keep, 7)}
    assert kept >= {each.id for each in future}, "and they stay, for somebody to look at"
    assert len(kept) == keep + len(future)


def test_a_clock_of_ours_that_is_behind_deletes_nothing() -> None:
    points = [_point(number) for number in range(60, 66)]
    assert len(_kept(points, 1, now=START)) == 6


def test_a_point_that_is_held_waits_and_the_others_go() -> None:
    clock = ManualClock()
    world = World(memory=MemoryStore(clock=clock), clock=clock)
    made = [world.back_up(bytes(65536), run=f"r-{number}") for number in range(3)]
    until = clock.now() + timedelta(days=30)
    world.memory.try_lock(made[0].key, until)
    plan = plan_retention(world.repository.points(), keep_points=1, now=clock.now())
    result = apply_retention(world.repository, plan)
    assert result.held == (HeldBack(point=made[0].id, until=until),)
    assert result.deleted == (made[1].id,)
    clock.advance(31 * 24 * 3600)
    again = apply_retention(world.repository, plan)
    assert again.deleted == (made[0].id,)
    assert again.held == ()
