"""The lab pool judged by recordings of a real XAPI, replayed against it step by step.

The recordings and their tool lie beside the checkout. Every step of a theme must be equal but for those listed here,
each with its reason; a step that begins to be equal must leave the list.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from holdfast.lab import LabDelays
from tests.support.golden import golden_path
from tests.support.lab import tiny_lab

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="replays a thousand steps, some of which wait")]

_TAR = "the tar format of raw disks is not offered yet"
_DUMP = "the dump of the pool's database is not offered yet"

DEVIATIONS: dict[str, dict[int, str]] = {
    "raw-export-a": {12: _TAR, 13: _TAR, 59: _TAR, 60: _TAR},
    "raw-export-b": {11: _TAR, 12: _TAR},
    "metadata-a": {93: _DUMP, 94: _DUMP, 95: _DUMP},
}
"""Theme to step to reason."""

THEMES = (
    "cbt-a",
    "events-a",
    "inventory-a",
    "inventory-b",
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
