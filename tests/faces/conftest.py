"""The command line against a lab pool: real commands, real sockets, a home of its own for each test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import run
from holdfast.lab import RunningLab
from tests.contract.pool_world import HurriedClock
from tests.support.lab import PASSWORD, logged_in, tiny_lab


@dataclass
class Cli:
    """The command ``holdfast`` with a home of its own."""

    home: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, status: int = 0) -> Any:
        """Run a command with ``--json``, hold its exit status against ``status``, return its document."""
        self.capsys.readouterr()
        got = run([*words, "--json", "--home", str(self.home)])
        told = self.capsys.readouterr()
        assert got == status, f"exit status {got}, not {status}: {told.out}{told.err}"
        return json.loads(told.out)

    def text(self, *words: str, status: int = 0) -> str:
        """Run a command as a person would and return all that it said."""
        self.capsys.readouterr()
        got = run([*words, "--home", str(self.home)])
        told = self.capsys.readouterr()
        assert got == status, f"exit status {got}, not {status}: {told.out}{told.err}"
        return told.out + told.err


@pytest.fixture
def lab() -> Iterator[RunningLab]:
    with tiny_lab() as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setattr("holdfast.daemon.compose.SystemClock", HurriedClock)
    monkeypatch.setenv("HOLDFAST_POOL_PASSWORD", PASSWORD)
    monkeypatch.delenv("HOLDFAST_PASSPHRASE", raising=False)
    return Cli(home=tmp_path / "home", capsys=capsys)


@pytest.fixture
def ready(cli: Cli, lab: RunningLab, tmp_path: Path) -> Cli:
    """A command line that knows the pool ``lab`` and an empty repository ``main``."""
    cli("pool", "add", "lab", lab.url, "--yes")
    cli("repository", "create", "main", str(tmp_path / "repository"))
    return cli


def backup(cli: Cli, *words: str, status: int = 0) -> Any:
    """Back up into ``main`` from ``lab`` and return the report."""
    return cli("backup", "run", "--pool", "lab", "--repository", "main", *words, status=status)


def points(cli: Cli, *words: str) -> list[dict[str, Any]]:
    """Return the listed points of ``main``."""
    listed: list[dict[str, Any]] = cli("point", "list", "--repository", "main", *words)["points"]
    return listed


def leftovers(lab: RunningLab) -> list[str]:
    """Return what of ours is on the pool apart from references for the next increment.

    Tasks do not count: those of a killed client are the pool's to forget.
    """
    return [str(each["name"]) for each in lab.control.ours() if each["class"] not in ("VDI", "task")]


def run_anyhow(cli: Cli, *words: str) -> int:
    """Run a command whatever its exit status, and return that; a traceback still fails the test."""
    cli.capsys.readouterr()
    status = run([*words, "--json", "--home", str(cli.home)])
    told = cli.capsys.readouterr()
    assert "Traceback" not in told.err
    json.loads(told.out)
    return int(status)


def write_as_guest(lab: RunningLab, vm_name: str, *, offset_bytes: int, data: bytes) -> str:
    """Write into the first disk of a VM as its guest would, and return the disk's uuid."""
    with logged_in(lab) as session:
        vm = session.xenapi.VM.get_by_name_label(vm_name)[0]
        for vbd in session.xenapi.VM.get_VBDs(vm):
            if session.xenapi.VBD.get_userdevice(vbd) == "0":
                uuid: str = session.xenapi.VDI.get_uuid(session.xenapi.VBD.get_VDI(vbd))
                lab.pool.disks.write(uuid, offset_bytes, data)
                return uuid
    raise AssertionError(vm_name)
