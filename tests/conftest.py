"""What holds for every test: hypothesis profiles, an environment of its own, and judges that may not be missing in CI.

Four variables steer a session: ``HYPOTHESIS_PROFILE`` names a profile below, ``HOLDFAST_REQUIRE_JUDGES=1`` turns a
skipped judge into a failure, ``HOLDFAST_JUDGES_DIR`` says where judges from npm are kept, ``HOLDFAST_TEST_WORKERS``
belongs to ``./dev test``. Every other ``HOLDFAST_*`` variable of the caller is removed, so that no test can touch
somebody's real pools and repositories.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.golden import GOLDEN_ABSENT

_STEERING = ("HOLDFAST_JUDGES_DIR", "HOLDFAST_REQUIRE_JUDGES", "HOLDFAST_TEST_WORKERS")
_JUDGES = Path(__file__).parent / "judges"

# Deadlines and "too slow" measure the machine, not the code: a loaded machine must not fail a property.
_MEASURES_OF_THE_MACHINE = [HealthCheck.too_slow]
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=_MEASURES_OF_THE_MACHINE,
)
settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=_MEASURES_OF_THE_MACHINE)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=2000)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile and clean the environment, before anything of ours is imported."""
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
    for name in [each for each in os.environ if each.startswith("HOLDFAST_") and each not in _STEERING]:
        del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _state_folder_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Give the session a state folder of its own; a test that forgets to name one lands there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLDFAST_HOME", str(tmp_path_factory.mktemp("holdfast-home", numbered=True)))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a skipped judge where judges are required."""
    report = yield
    if item.get_closest_marker("judge") is not None and _must_not_be_skipped(report):
        report.outcome = "failed"
        report.longrepr = f"a judge is required here but was skipped: {_reason_of(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a whole file of judges that skipped itself where judges are required."""
    report = yield
    if collector.path.is_relative_to(_JUDGES) and _must_not_be_skipped(report):
        report.outcome = "failed"
        report.longrepr = f"judges are required but {collector.path.name} was skipped: {_reason_of(report.longrepr)}"
    return report


def _must_not_be_skipped(report: pytest.TestReport | pytest.CollectReport) -> bool:
    """Whether this skip hides a judge that CI installs; recordings that CI cannot have and expected failures do not."""
    required = os.environ.get("HOLDFAST_REQUIRE_JUDGES", "") not in ("", "0")
    excused = hasattr(report, "wasxfail") or GOLDEN_ABSENT in _reason_of(report.longrepr)
    return required and report.skipped and not excused


def _reason_of(longrepr: object) -> str:
    """Return what was said when skipping; pytest keeps it as (path, line, reason)."""
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
