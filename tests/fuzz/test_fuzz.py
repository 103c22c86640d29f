"""Every decoder takes thousands of broken inputs with nothing but typed errors; atheris looks for more, for a while.

Here it takes the same seed and number of inputs at every run, so that a change is judged by itself; ``./dev fuzz``
looks by chance.
"""

from __future__ import annotations

import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.fuzz.target import mutated
from tests.fuzz.targets import CORPUS, GROUPS, TARGETS

_MUTATIONS = 300
_INPUTS = 200_000
_PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_valid_inputs_are_inputs_of_their_decoder(name: str) -> None:
    assert TARGETS[name].samples(), "a target begins with something that is nearly valid"
    for sample in TARGETS[name].samples():
        TARGETS[name].feed(sample)


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_what_was_found_once_is_refused_properly(name: str) -> None:
    for path in sorted((CORPUS / name).iterdir()):
        {**GROUPS, **TARGETS}[name].feed(path.read_bytes())


@pytest.mark.slow(reason="hundreds of inputs for each decoder")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_mutations_of_valid_inputs_are_refused_properly(name: str) -> None:
    target = TARGETS[name]
    chance = random.Random(zlib.crc32(name.encode()))
    for _ in range(_MUTATIONS):
        target.feed(mutated(chance.choice(target.samples()), chance))


@pytest.mark.slow(reason="up to half a minute of atheris for each group of decoders")
@pytest.mark.parametrize("name", sorted(GROUPS))
def test_atheris_finds_nothing_in_many_inputs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="NOT PROVEN HERE: atheris has no wheel for this Python")
    command = [sys.executable, "-m", "tests.fuzz", name, f"--runs={_INPUTS}", "--seed=1", "--seconds=180"]
    command.append(f"--work={tmp_path}")
    done = subprocess.run(command, cwd=_PROJECT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"Done {_INPUTS} runs" in done.stderr
