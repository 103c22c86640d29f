"""A run's status says whether anything more can happen to it."""

from __future__ import annotations

import pytest

from holdfast.model import RunStatus


@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.INTERRUPTED])
def test_a_run_that_can_go_on_is_not_final(status: RunStatus) -> None:
    assert not status.is_final


@pytest.mark.parametrize("status", [RunStatus.SUCCEEDED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED])
def test_a_run_that_ended_is_final(status: RunStatus) -> None:
    assert status.is_final


def test_stored_statuses_keep_their_spelling_for_ever() -> None:
    assert {each.value for each in RunStatus} == {
        "running", "paused", "interrupted", "succeeded", "partial", "failed", "cancelled",
    }  # fmt: skip
