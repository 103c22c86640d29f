"""Time comes through one seam: tests own it, stored times are UTC and survive the way there and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import (
    Cancellation,
    Cancelled,
    Clock,
    ManualClock,
    SystemClock,
    format_minute,
    format_time,
    parse_time,
)


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    assert clock.now() == clock.now()
    clock.advance(90)
    assert clock.now() == datetime(2026, 3, 1, 0, 1, 30, tzinfo=UTC)
    assert clock.monotonic_s() == 90


def test_sleeping_on_a_manual_clock_takes_no_time_but_moves_it() -> None:
    clock = ManualClock()
    before = clock.now()
    clock.sleep(3600)
    assert clock.now() - before == timedelta(hours=1)


def test_a_manual_clock_never_goes_back() -> None:
    with pytest.raises(AssertionError):
        ManualClock().advance(-1)


@pytest.mark.parametrize("clock", [ManualClock(), SystemClock()], ids=["manual", "system"])
def test_sleeping_ends_at_once_when_cancelled(clock: Clock) -> None:
    token = Cancellation()
    token.cancel(reason="stop")
    before_s = clock.monotonic_s()
    with pytest.raises(Cancelled):
        clock.sleep(3600, cancel=token)
    assert clock.monotonic_s() - before_s < 60


def test_the_system_clock_tells_utc_and_runs_forward() -> None:
    clock = SystemClock()
    first_s = clock.monotonic_s()
    clock.sleep(0)
    assert clock.now().tzinfo is UTC
    assert clock.monotonic_s() >= first_s


def test_a_stored_time_is_utc_whatever_zone_it_came_in() -> None:
    moment = datetime(2026, 11, 20, 10, 8, 20, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(moment) == "2026-11-20T09:08:20Z"


def test_people_are_told_utc_whatever_zone_a_time_came_in() -> None:
    moment = datetime(2026, 11, 20, 10, 8, 59, tzinfo=timezone(timedelta(hours=1)))
    assert format_minute(moment) == "2026-11-20 09:08 UTC"


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9990, 1, 1), timezones=st.timezones()))
def test_a_time_comes_back_as_it_was_written(moment: datetime) -> None:
    assert parse_time(format_time(moment)) == moment.astimezone(UTC).replace(microsecond=0)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-20T09:08:20"])
def test_a_text_that_is_no_stored_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|month|isoformat"):
        parse_time(text)


def test_a_moment_without_a_zone_is_never_stored() -> None:
    with pytest.raises(AssertionError):
        format_time(datetime(2026, 11, 20))
