"""Places of repositories by the command line: a share, mounted or not; tests with a verdict; lines and costs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.lab import RunningLab
from tests.faces.conftest import Cli, backup, points
from tests.support.s3_servers import s3_place, shared_moto
from tests.support.smb_server import PASSWORD, shared_smb_server


@pytest.mark.judge
@pytest.mark.slow(reason="a lab pool, a Samba, whole runs")
def test_a_repository_in_a_share_is_the_same_mounted_and_not(
    cli: Cli, lab: RunningLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = shared_smb_server()
    monkeypatch.setenv("SMB_PASSWORD", PASSWORD.reveal())
    location = server.location("faces-store")
    cli("pool", "add", "lab", lab.url, "--yes")
    key = cli("repository", "create", "main", location)["recovery_key"]
    backup(cli, "--vm", "beta")
    assert cli("point", "verify", "--repository", "main")
    assert cli("repository", "show", "main")["free_bytes"] > 0
    point = points(cli)[-1]["id"]

    cli("repository", "remove", "main", "--yes")
    (cli.home / "recovery").write_text(key)
    folder = server.folder() / "faces-store"
    cli("repository", "connect", "main", str(folder), "--recovery-key-file", str(cli.home / "recovery"))
    assert points(cli)[-1]["id"] == point
    backup(cli, "--vm", "beta")
    cli("repository", "remove", "main", "--yes")

    cli("repository", "connect", "main", location, "--recovery-key-file", str(cli.home / "recovery"))
    assert len(points(cli)) == 2
    before = next(each for each in cli("vm", "list", "lab") if each["name"] == "beta")
    wanted = {disk["position"]: lab.control.sha256(disk["uuid"]) for disk in before["disks"]}
    report = cli("restore", "vm", point, "--repository", "main", "--pool", "lab", "--name", "back")
    assert {each["position"]: lab.control.sha256(each["disk"]) for each in report["run"]["result"]["disks"]} == wanted
    cli("point", "delete", point, "--repository", "main", "--yes")
    cli("repository", "gc", "main")
    assert len(points(cli)) == 1
    assert list((folder / "tmp").iterdir()) == []


@pytest.mark.judge
@pytest.mark.slow(reason="a Samba, and 200 MB for each test")
def test_a_share_is_tested_before_anything_is_kept_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    server = shared_smb_server()
    told = cli.text("repository", "test", server.location("tried"), status=2)
    assert "SMB_PASSWORD" in told
    monkeypatch.setenv("SMB_PASSWORD", "wrong")
    assert "does not let user 'keeper' in" in cli.text("repository", "test", server.location("tried"), status=4)
    monkeypatch.setenv("SMB_PASSWORD", PASSWORD.reveal())
    outcome = cli("repository", "test", server.location("tried"), "--lock")
    assert outcome["is_fit"] is True
    assert outcome["verdict"] == "Fit for backups, with 1 warning."
    assert list((server.folder() / "tried").rglob("probe*")) == []


@pytest.mark.slow(reason="200 MB on a real disk")
def test_a_repository_is_tested_without_being_touched(cli: Cli, tmp_path: Path) -> None:
    cli("repository", "create", "main", str(tmp_path / "repository"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "repository").rglob("*") if path.is_file()}
    outcome = cli("repository", "test", "main")
    assert outcome["is_fit"] is True
    assert {each["name"] for each in outcome["findings"]} >= {"create only", "lengths", "listing", "speed"}
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "repository").rglob("*") if path.is_file()}
    assert after == before
    assert "Fit for backups." in cli.text("repository", "test", "main")


def test_a_repository_whose_file_system_is_not_mounted_is_not_tested_below_it(cli: Cli, tmp_path: Path) -> None:
    cli("repository", "create", "main", str(tmp_path / "repository"))
    (tmp_path / "repository").rename(tmp_path / "unmounted")
    assert "mounted" in cli.text("repository", "test", "main", status=5)
    assert not (tmp_path / "repository").exists(), "nothing is made where the file system will be mounted"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no memory file system here")
@pytest.mark.slow(reason="200 MB in memory")
def test_a_place_in_memory_is_not_fit_and_shown_so(cli: Cli) -> None:
    place = Path(f"/dev/shm/holdfast-test-{os.getpid()}")
    try:
        cli("repository", "create", "main", str(place))
        told = cli.text("repository", "test", "main", status=4)
        assert "gone when the machine restarts" in told
        assert "Not fit for backups" in told
        assert "gone when the machine restarts" in cli.text("repository", "show", "main")
        findings = cli("repository", "show", "main")["findings"]
        assert "data at risk" in [each["severity"] for each in findings]
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


@pytest.mark.slow(reason="a process of its own that is interrupted")
def test_an_interrupted_test_cleans_up(cli: Cli, tmp_path: Path) -> None:
    cli("repository", "create", "main", str(tmp_path / "repository"))
    # A slow line keeps the test busy until it is interrupted.
    cli("repository", "limit", "main", "--up", "1kB")
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast", "repository", "test", "main"],
        env={**os.environ, "HOLDFAST_HOME": str(cli.home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_probes(process, tmp_path / "repository")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in told
    assert "What the test stored is removed" in told
    assert list((tmp_path / "repository").rglob("probe*")) == []


def _wait_for_probes(process: subprocess.Popen[str], folder: Path) -> None:
    for _ in range(600):
        if list(folder.glob("probe*")):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
    raise AssertionError("the test has not begun")


def test_a_limit_of_the_line_is_remembered(cli: Cli, tmp_path: Path) -> None:
    cli("repository", "create", "main", str(tmp_path / "repository"))
    assert "no limit" in cli.text("repository", "limit", "main")
    for text, expected in [("20MB", 20_000_000), ("1.5MiB/s", 1_572_864), ("100Mbit", 12_500_000), ("9 k", 9000)]:
        assert cli("repository", "limit", "main", "--up", text)["limits"]["up_bytes_per_s_max"] == expected
    assert cli("repository", "limit", "main", "--down", "1GB")["limits"] == {
        "up_bytes_per_s_max": 9000,
        "down_bytes_per_s_max": 10**9,
    }
    assert cli("repository", "limit", "main", "--up", "off")["limits"]["up_bytes_per_s_max"] is None
    for text in ("fast", "0", "5TBit", "1e9", "MB"):
        assert "is not a rate" in cli.text("repository", "limit", "main", "--up", text, status=2)


@pytest.mark.slow(reason="a service")
def test_the_costs_of_a_bucket_rest_on_what_was_asked_of_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    service = shared_moto()
    place = s3_place(service)
    for name, value in service.credentials().items():
        monkeypatch.setenv(name, value)
    cli("repository", "create", "main", place.location, "--endpoint", service.url)
    cli("repository", "show", "main")
    told = cli.text("repository", "cost", "main", "--prices", "aws-s3")
    assert "puts counted in 1 days" in told
    assert "2025-" in told
    document = cli("repository", "cost", "main", "--prices", "wasabi")
    assert document["month_usd"][0] == pytest.approx(6.99)
    assert "No list of prices suits" in cli.text("repository", "cost", "main")
    assert "Known:" in cli.text("repository", "cost", "main", "--prices", "moon", status=2)
