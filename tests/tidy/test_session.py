"""A required judge cannot be skipped unseen, and recordings are found beside the checkout or missed loudly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.conftest import pytest_runtest_makereport
from tests.support.golden import GOLDEN_ABSENT, find_golden, golden_path


def _report(*, skipped: bool, reason: str = "qemu-img is not installed") -> pytest.TestReport:
    return pytest.TestReport(
        nodeid="tests/judges/test_x.py::test_y",
        location=("tests/judges/test_x.py", 1, "test_y"),
        keywords={},
        outcome="skipped" if skipped else "passed",
        longrepr=("tests/judges/test_x.py", 1, f"Skipped: {reason}") if skipped else None,
        when="call",
    )


def _judged(report: pytest.TestReport, request: pytest.FixtureRequest) -> pytest.TestReport:
    """Pass a report through our hook, as pytest does."""
    hook = pytest_runtest_makereport(request.node)
    next(hook)
    with pytest.raises(StopIteration) as ended:
        hook.send(report)
    returned = ended.value.value
    assert isinstance(returned, pytest.TestReport)
    return returned


@pytest.mark.judge
def test_a_skipped_judge_fails_where_judges_are_required(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_REQUIRE_JUDGES", "1")
    judged = _judged(_report(skipped=True), request)
    assert judged.failed
    assert "qemu-img is not installed" in str(judged.longrepr)


@pytest.mark.judge
@pytest.mark.parametrize("required", ["", "0"])
def test_a_skipped_judge_stays_skipped_elsewhere(
    required: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_REQUIRE_JUDGES", required)
    assert _judged(_report(skipped=True), request).skipped


@pytest.mark.judge
def test_recordings_that_ci_cannot_have_are_no_missing_judge(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_REQUIRE_JUDGES", "1")
    assert _judged(_report(skipped=True, reason=f"{GOLDEN_ABSENT}: no folder"), request).skipped
    assert _judged(_report(skipped=False), request).passed


def test_other_tests_may_be_skipped_anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_REQUIRE_JUDGES", "1")
    assert _judged(_report(skipped=True), request).skipped


def test_no_variable_of_the_caller_reaches_a_test() -> None:
    known = {"HOLDFAST_HOME", "HOLDFAST_REQUIRE_JUDGES", "HOLDFAST_TEST_WORKERS"}
    assert {name for name in os.environ if name.startswith("HOLDFAST_")} <= known
    assert Path(os.environ["HOLDFAST_HOME"]).is_dir()


def test_no_property_fails_because_the_machine_is_slow() -> None:
    assert settings.get_profile("ci").derandomize
    assert all(settings.get_profile(name).deadline is None for name in ("ci", "dev", "thorough"))


def test_a_recording_is_found_beside_the_checkout_or_above(tmp_path: Path) -> None:
    recording = tmp_path / "shared" / "golden" / "full.vhd"
    recording.parent.mkdir(parents=True)
    recording.write_bytes(b"x")
    start = tmp_path / "worktrees" / "a" / "tests" / "support" / "golden.py"
    assert find_golden("full.vhd", start=start) == recording
    assert find_golden("gone.vhd", start=start) is None


def test_an_absent_recording_skips_and_says_so() -> None:
    with pytest.raises(pytest.skip.Exception, match=GOLDEN_ABSENT):
        golden_path("no-such-recording")
