"""The lab pool judged by recordings of a real XAPI, replayed against it step by step.

The recordings and their tool lie beside the checkout. Every step of a theme must be equal but for those listed here,
each with its reason, which ``docs/lab.md`` tells too; a step that begins to be equal must leave the list. A recording
that is laid beside the others is replayed without being named here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.lab import LabDelays
from tests.support.golden import find_golden, golden_path
from tests.support.lab import tiny_lab
from tests.tidy.source import PROJECT

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="replays a thousand steps, some of which wait")]

DEVIATIONS: dict[str, dict[int, str]] = {}
"""Theme to step to reason."""

_TOOL = "replay/replay.py"

_FOUND = find_golden(_TOOL, start=Path(__file__).resolve())
THEMES = tuple(sorted(path.stem for path in _FOUND.parent.glob("*.jsonl"))) if _FOUND else ("no recordings",)
"""Whatever has been recorded is replayed."""

_DIFFERS = re.compile(r"^ *(\d+) (?:differs|error) *+(?!\(aside\))", re.MULTILINE)

_NBD_PORT = 10809
"""The recordings name it, so each lab has it at an address of its own."""


def _own_address(theme: str) -> str:
    """Return a loopback address that no other lab of the suite has."""
    number = THEMES.index(theme)
    return f"127.77.{number // 200}.{number % 200 + 1}"


@pytest.mark.parametrize("theme", THEMES)
def test_the_lab_answers_as_the_recorded_pool_did(theme: str) -> None:
    tool = golden_path(_TOOL)
    # The pool of the recordings: one host, plain images, no network meant for NBD.
    with tiny_lab(
        scenario="recorded",
        host=_own_address(theme),
        nbd="none",
        nbd_port=_NBD_PORT,
        delays=LabDelays(unplug_s=0.05),
    ) as lab:
        address = lab.plain_url.removeprefix("http://")
        command = [sys.executable, "-B", str(tool), "compare", f"{theme}.jsonl", "--pool", address]
        done = subprocess.run(command, cwd=tool.parent, capture_output=True, text=True, timeout=280, check=False)
    assert "passed" in done.stdout, done.stderr
    differing = {int(number) for number in _DIFFERS.findall(done.stdout)}
    assert differing == set(DEVIATIONS.get(theme, {})), done.stdout


def test_every_step_that_differs_is_explained_to_users() -> None:
    page = (PROJECT / "docs/lab.md").read_text(encoding="utf-8")
    reasons = {reason for steps in DEVIATIONS.values() for reason in steps.values()}
    assert sorted(reason for reason in reasons if reason not in page) == []
    assert set(DEVIATIONS) <= set(THEMES)
