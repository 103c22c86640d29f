"""``holdfast repository scrub`` and ``heal``, typed as a person types them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import run
from holdfast.cli.verification import explain_verification
from holdfast.core import ExitStatus, ManualClock, SeededEntropy
from holdfast.repository import OpenUnlock, Repository, open_repository
from holdfast.storage import PosixStore
from tests.support.repositories import World, disk_facts, image_of, write_whole

IMAGE = image_of({0: 2, 2: 4, 4: 6}, count=5)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def main(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    return _repository(tmp_path, home, "main")


def _repository(tmp_path: Path, home: Path, name: str) -> Path:
    """Create a repository with one restore point; return its folder."""
    folder = tmp_path / name
    assert run(["repository", "create", name, str(folder), "--no-secret", "--home", str(home)]) == ExitStatus.OK
    repository = _open(folder)
    world = World()
    with repository.begin_run(world.facts(f"r-{name}").run, cancel=world.cancel) as writer:
        stored = write_whole(writer, IMAGE)
        writer.publish(world.facts(f"r-{name}"), [(disk_facts(len(IMAGE)), stored)])
    return folder


def _open(folder: Path) -> Repository:
    return open_repository(
        PosixStore(folder), unlock=OpenUnlock(), clock=ManualClock(), entropy=SeededEntropy(3), workers=0
    )


def _flip(folder: Path) -> str:
    (path,) = [each for each in (folder / "packs").rglob("*") if each.is_file()]
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    return f"packs/{path.parent.name}/{path.name}"


def _json(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    status = run([*words, "--json", "--home", str(home)])
    return status, json.loads(capsys.readouterr().out)


def _said(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, str]:
    capsys.readouterr()
    status = run([*words, "--home", str(home)])
    return status, capsys.readouterr().out


def test_a_scrub_tells_what_it_read_and_the_status_remembers(
    main: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = _said(capsys, home, "repository", "scrub", "main", "--status")
    assert status == ExitStatus.OK
    assert "Not read since they were stored: 1" in said
    status, said = _said(capsys, home, "repository", "scrub", "main", "--budget", "1GiB")
    assert status == ExitStatus.OK
    assert "Packs read: 1" in said
    assert "Scrubs of this budget for a full round: 1" in said
    status, document = _json(capsys, home, "repository", "scrub", "main", "--status")
    assert status == ExitStatus.OK
    assert document["status"]["never_packs"] == 0
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["status"]["oldest_at"])
    assert document["damage"] == []


def test_each_point_says_since_when_it_is_checked(main: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, document = _json(capsys, home, "point", "list", "--repository", "main", "--checked")
    (point,) = document["points"]
    assert point["checked"]["checked_at"] is None
    run(["repository", "scrub", "main", "--home", str(home)])
    _, said = _said(capsys, home, "point", "list", "--repository", "main", "--checked")
    assert "data checked 20" in said
    _, said = _said(capsys, home, "point", "show", point["id"], "--repository", "main")
    assert "data checked 20" in said
    _, document = _json(capsys, home, "point", "show", point["id"], "--repository", "main")
    assert document["checked"]["checked_at"] is not None


def test_damage_is_told_and_healed_from_a_mirror(
    main: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _repository(tmp_path, home, "offsite")
    damaged = _flip(main)
    status, said = _said(capsys, home, "repository", "scrub", "main")
    assert status == ExitStatus.DAMAGED
    assert f"damaged: {damaged} slots 0: its seal does not match" in said
    assert "hits VM 'web-frontend' disk 0 'system-volume'" in said
    assert "64.0 KiB lost, at byte 0" in said
    status, said = _said(capsys, home, "repository", "heal", "main")
    assert status == ExitStatus.DAMAGED
    assert "left without a whole copy: 1" in said
    status, document = _json(capsys, home, "repository", "heal", "main", "--from-mirror", "offsite")
    assert status == ExitStatus.OK
    assert document["healed"]["healed_slots"] == 1
    assert document["is_sound"] is True
    status, said = _said(capsys, home, "point", "verify", "--repository", "main")
    assert status == ExitStatus.OK
    assert "all sound" in said


def test_damage_is_healed_from_an_image_of_the_disk(
    main: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _flip(main)
    status, document = _json(capsys, home, "point", "verify", "--repository", "main")
    assert status == ExitStatus.DAMAGED
    (hit,) = document["damage"][0]["hits"]
    assert hit["extents"] == [{"offset_bytes": 0, "length_bytes": 65536}]
    image = tmp_path / "disk.raw"
    image.write_bytes(IMAGE)
    heal = ["repository", "heal", "main", "--from-image", str(image), "--disk", "system-volume"]
    assert _said(capsys, home, *heal)[0] == ExitStatus.OK


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--disk", "x"], "repository.donor-unclear"),
        (["--from-image", "x"], "repository.donor-unclear"),
        (["--from-image", "x", "--disk", "x", "--from-mirror", "main"], "repository.donor-unclear"),
        (["--from-image", "/nowhere/disk.raw", "--disk", "x"], "repository.image-unreadable"),
        (["--from-mirror", "nobody"], "config.name-unknown"),
    ],
)
def test_a_donor_that_is_none_is_refused(
    main: Path, home: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    _, document = _json(capsys, home, "repository", "heal", "main", *words)
    assert document["error"]["code"] == code


def test_a_sound_verification_that_cannot_be_noted_speaks_of_no_damage() -> None:
    world = World()
    world.back_up(IMAGE, run="r-1")
    sound = dataclasses.replace(world.verify(), not_quarantined="no space is left")
    (summary, noted) = explain_verification(sound)
    assert summary.endswith("all sound")
    assert noted == "that it was read could not be noted, so a scrub reads it again: no space is left"


def test_the_overview_of_a_repository_says_that_points_are_damaged(
    main: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "DAMAGED" not in _said(capsys, home, "repository", "show", "main")[1]
    _flip(main)
    run(["repository", "scrub", "main", "--home", str(home)])
    _, said = _said(capsys, home, "repository", "show", "main")
    assert "DAMAGED: 1 restore points have lost data" in said
    _, document = _json(capsys, home, "repository", "show", "main")
    assert len(document["damaged"]) == 1
