"""``holdfast repository mirror``, typed as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import run
from holdfast.core import ExitStatus, ManualClock, SeededEntropy
from holdfast.repository import OpenUnlock, open_repository
from holdfast.storage import PosixStore
from tests.support.repositories import World, disk_facts, image_of, write_whole

IMAGE = image_of({0: 2, 2: 4, 4: 6}, count=5)


class Shell:
    """A home with a repository of one restore point, an empty one, and what commands print."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.capsys, self.main = folder / "home", capsys, folder / "main"
        for name in ("main", "offsite"):
            assert self.text("repository", "create", name, str(folder / name), "--no-secret")[0] == ExitStatus.OK
        clock, entropy, store = ManualClock(), SeededEntropy(3), PosixStore(self.main)
        repository = open_repository(store, unlock=OpenUnlock(), clock=clock, entropy=entropy, workers=0)
        world = World()
        facts = world.facts("r-1")
        with repository.begin_run(facts.run, cancel=world.cancel) as writer:
            self.point = writer.publish(facts, [(disk_facts(len(IMAGE)), write_whole(writer, IMAGE))]).id

    def document(self, *words: str) -> tuple[int, Any]:
        """Return exit status and document of a command."""
        self.capsys.readouterr()
        status = run([*words, "--json", "--home", str(self.home)])
        return status, json.loads(self.capsys.readouterr().out)

    def text(self, *words: str) -> tuple[int, str]:
        """Return exit status and what a command prints for people."""
        self.capsys.readouterr()
        status = run([*words, "--home", str(self.home)])
        printed = self.capsys.readouterr()
        return status, printed.out + printed.err


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_points_are_planned_sent_and_not_sent_again(shell: Shell) -> None:
    status, planned = shell.document("repository", "mirror", "main", "offsite", "--dry-run")
    assert (status, [each["point"] for each in planned["plan"]["missing"]]) == (ExitStatus.OK, [shell.point])
    status, done = shell.document("repository", "mirror", "main", "offsite")
    assert (status, len(done["sent"]), done["failed"]) == (ExitStatus.OK, 1, [])
    assert done["sizes"]["new_bytes"] > 0
    assert shell.document("repository", "mirror", "main", "offsite")[1]["sent"] == []


def test_a_mirrored_point_tells_where_it_came_from(shell: Shell) -> None:
    shell.document("repository", "mirror", "main", "offsite")
    _, listed = shell.document("point", "list", "--repository", "offsite")
    (point,) = listed["points"]
    _, shown = shell.document("point", "show", point["id"], "--repository", "offsite")
    assert shown["origin"]["point"] == shell.point
    assert (
        f"mirrored from point {shell.point} of"
        in shell.text("point", "show", point["id"], "--repository", "offsite")[1]
    )
    _, own = shell.document("point", "show", shell.point, "--repository", "main")
    assert own["origin"] is None


def test_a_point_that_cannot_be_read_is_named_and_the_target_has_none_of_it(shell: Shell) -> None:
    (pack,) = [each for each in (shell.main / "packs").rglob("*") if each.is_file()]
    pack.chmod(0o644)
    content = bytearray(pack.read_bytes())
    content[60] ^= 1
    pack.write_bytes(content)
    status, said = shell.text("repository", "mirror", "main", "offsite")
    assert status == ExitStatus.DAMAGED
    assert "was not sent" in said
    assert shell.document("point", "list", "--repository", "offsite")[1]["points"] == []
