"""The lab pool judged by recordings of a real XAPI, replayed against it step by step.

The recordings and their tool lie beside the checkout. Every step of a theme must be equal but for those listed here,
each with its reason, which ``docs/lab.md`` tells too; a step that begins to be equal must leave the list, and a
recording that nobody replays fails the suite.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from holdfast.lab import LabDelays
from tests.support.golden import golden_path
from tests.support.lab import tiny_lab
from tests.tidy.source import PROJECT

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="replays a thousand steps, some of which wait")]

DEVIATIONS: dict[str, dict[int, str]] = {}
"""Theme to step to reason."""

THEMES = (
    "cbt-a",
    "events-a",
    "inventory-a",
    "inventory-b",
    "locks-a",
    "metadata-a",
    "nbd-plain-a",
    "raw-export-a",
    "raw-export-b",
    "raw-import-a",
    "rpc-wire-a",
    "sessions-a",
    "tasks-a",
    "vbd-vif-a",
    "vdi-copy-a",
    "vdi-copy-b",
    "vdi-lifecycle-a",
    "vm-clone-copy-a",
    "vm-create-a",
    "vm-fields-b",
    "vm-snapshot-a",
    "where-a",
    "xva-export-a",
    "xva-import-a",
)

_DIFFERS = re.compile(r"^ *(\d+) (?:differs|error) *+(?!\(aside\))", re.MULTILINE)

_NBD_PORT = 10809
"""The recordings name it; only their NBD theme looks."""


@pytest.mark.parametrize("theme", THEMES)
def test_the_lab_answers_as_the_recorded_pool_did(theme: str) -> None:
    tool = golden_path("replay/replay.py")
    nbd_port = _NBD_PORT if theme.startswith("nbd") else 0
    # The pool of the recordings: one host, plain images, no network meant for NBD.
    with tiny_lab(scenario="recorded", nbd="none", nbd_port=nbd_port, delays=LabDelays(unplug_s=0.05)) as lab:
        address = lab.plain_url.removeprefix("http://")
        command = [sys.executable, "-B", str(tool), "compare", f"{theme}.jsonl", "--pool", address]
        done = subprocess.run(command, cwd=tool.parent, capture_output=True, text=True, timeout=280, check=False)
    assert "passed" in done.stdout, done.stderr
    differing = {int(number) for number in _DIFFERS.findall(done.stdout)}
    assert differing == set(DEVIATIONS.get(theme, {})), done.stdout


def test_every_recording_is_replayed() -> None:
    folder = golden_path("replay/replay.py").parent
    assert {path.stem for path in folder.glob("*.jsonl")} == set(THEMES)


def test_every_step_that_differs_is_explained_to_users() -> None:
    page = (PROJECT / "docs/lab.md").read_text(encoding="utf-8")
    reasons = {reason for steps in DEVIATIONS.values() for reason in steps.values()}
    assert sorted(reason for reason in reasons if reason not in page) == []
    assert set(DEVIATIONS) <= set(THEMES)
