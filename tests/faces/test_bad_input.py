"""Bad input and bad luck: a clear error, the right exit status, nothing lost, nothing of ours left on the pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.lab import RunningLab
from tests.faces.conftest import Cli, backup, leftovers, points, run_anyhow, write_as_guest

pytestmark = pytest.mark.slow(reason="a lab pool, several whole runs")


def test_a_wrong_password_is_refused_and_nothing_is_stored(
    cli: Cli, lab: RunningLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_POOL_PASSWORD", "wrong")
    error = cli("pool", "add", "lab", lab.url, "--yes", status=4)["error"]
    assert "password" in error["next_step"].lower()
    assert cli("pool", "list") == []


def test_an_unreachable_pool_is_told_as_such(cli: Cli) -> None:
    error = cli("pool", "add", "lab", "https://127.0.0.1:9", "--yes", status=3)["error"]
    assert error["code"] == "pool.unreachable"
    assert error["effect"]


def test_a_pool_that_went_away_fails_the_command_not_the_program(ready: Cli, lab: RunningLab) -> None:
    lab.close()
    error = backup(ready, "--vm", "alpha", status=3)["error"]
    assert error["code"] == "pool.unreachable"


def test_another_certificate_is_refused_before_the_password_is_sent(ready: Cli, lab: RunningLab) -> None:
    error = ready("pool", "add", "other", lab.url, "--fingerprint", "00" * 32, status=4)["error"]
    assert lab.fingerprint in str(error)


def test_nobody_to_ask_about_a_certificate_means_no(cli: Cli, lab: RunningLab) -> None:
    error = cli("pool", "add", "lab", lab.url, status=4)
    assert "--fingerprint" in str(error)


def test_an_unknown_vm_names_the_near_ones(ready: Cli) -> None:
    error = backup(ready, "--vm", "alhpa", status=5)["error"]
    assert "alpha" in str(error)


def test_no_vm_at_all_is_not_success(ready: Cli) -> None:
    assert backup(ready, status=5)["error"]["code"] == "backup.nothing-selected"


def test_a_wrong_passphrase_opens_nothing(ready: Cli, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not it")
    where = str(tmp_path / "repository")
    other = Cli(home=tmp_path / "other", capsys=ready.capsys)
    error = other("repository", "connect", "main", where, "--passphrase-file", str(wrong), status=4)["error"]
    assert error["code"] == "repository.wrong-key"
    assert other("repository", "list") == []


def test_a_place_that_is_a_file_or_not_empty_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    cli("repository", "create", "main", str(tmp_path / "file"), status=4)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("do not touch")
    error = cli("repository", "create", "main", str(tmp_path / "folder"), status=4)["error"]
    assert "letter.txt" in str(error)
    assert (tmp_path / "folder" / "letter.txt").read_text() == "do not touch"


def test_flipped_bytes_are_found_and_named_and_other_points_stay_usable(
    ready: Cli, lab: RunningLab, tmp_path: Path
) -> None:
    backup(ready, "--vm", "alpha")
    pack = max((tmp_path / "repository" / "packs").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    backup(ready, "--vm", "beta")
    data = bytearray(pack.read_bytes())
    data[len(data) // 3] ^= 0x40
    pack.chmod(0o600)
    pack.write_bytes(data)
    report = ready("point", "verify", "--repository", "main", status=6)
    assert {hit["vm_name"] for damage in report["damage"] for hit in damage["hits"]} == {"alpha"}
    beta = points(ready, "--vm", "beta")[0]
    # Beta shares a few blocks, and so a pack, with alpha; the damage is not in what it needs.
    words = ("restore", "vm", beta["id"], "--repository", "main", "--pool", "lab", "--name", "copy")
    restored = ready(*words)["run"]["result"]["disks"]
    live = {disk["position"]: disk["uuid"] for disk in beta["disks"]}
    for disk in restored:
        assert lab.control.sha256(disk["disk"]) == lab.control.sha256(live[disk["position"]])


def test_a_damaged_pack_never_becomes_a_restored_vm(ready: Cli, lab: RunningLab, tmp_path: Path) -> None:
    backup(ready, "--vm", "alpha")
    for pack in (tmp_path / "repository" / "packs").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            data[len(data) // 3] ^= 0x40
            pack.write_bytes(data)
    point = points(ready)[0]["id"]
    words = ("restore", "vm", point, "--repository", "main", "--pool", "lab", "--name", "broken")
    ready(*words, status=6)
    assert "broken" not in {each["name"] for each in ready("vm", "list", "lab")}
    assert leftovers(lab) == []


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [
        ("snapshot-fails", {"disk": 1}),
        ("call-fails", {"method": "VM.snapshot", "code": "SR_BACKEND_FAILURE_44", "parameters": "|no space|"}),
    ],
)
def test_a_failing_snapshot_fails_that_vm_alone_and_leaves_nothing(
    ready: Cli, lab: RunningLab, fault: str, parameters: dict[str, str | int]
) -> None:
    lab.control.arm_fault(fault, count=1 if fault != "snapshot-fails" else -1, **parameters)
    report = backup(ready, "--vm", "beta", "--vm", "alpha", status=8)
    assert report["run"]["status"] == "partial"
    lab.control.clear_faults()
    assert len(points(ready)) == 1
    assert leftovers(lab) == []
    assert any(each["severity"] == "data at risk" for each in report["run"]["findings"])


@pytest.mark.parametrize(
    ("fault", "parameters"),
    [
        ("nbd-info-empty", {}),
        ("changed-blocks-fail", {}),
        ("cbt-lost", {}),
        ("nbd-busy", {}),
        ("nbd-disconnects", {"after_bytes": 100_000}),
        ("export-cut", {"after_bytes": 100_000}),
        ("export-fails-late", {"after_bytes": 100_000}),
        ("export-truncated", {"after_bytes": 100_000}),
        ("export-lies", {}),
        ("task-vanishes", {"method": "VM.snapshot"}),
        ("session-invalid", {"method": "VDI.get_record"}),
    ],
)
def test_whatever_goes_wrong_on_the_way_a_published_point_is_right(
    ready: Cli, lab: RunningLab, fault: str, parameters: dict[str, str | int]
) -> None:
    """Either the run finds another way and its point restores to the same hash, or there is no new point."""
    backup(ready, "--vm", "alpha")
    disk = write_as_guest(lab, "alpha", offset_bytes=21 * 1024 * 1024, data=b"new" * 50_000)
    lab.control.arm_fault(fault, count=3, **parameters)
    run_anyhow(ready, "backup", "run", "--pool", "lab", "--repository", "main", "--vm", "alpha")
    lab.control.clear_faults()
    assert len(leftovers(lab)) <= 1, "at most the snapshot that stays whole as reference while NBD or CBT is away"
    if len(points(ready)) == 2:
        newest = points(ready)[-1]["id"]
        report = ready("restore", "vm", newest, "--repository", "main", "--pool", "lab", "--name", "copy")
        assert lab.control.sha256(report["run"]["result"]["disks"][0]["disk"]) == lab.control.sha256(disk)
    backup(ready, "--vm", "alpha")
    assert leftovers(lab) == []


def test_a_mistyped_network_is_refused_instead_of_ignored(ready: Cli) -> None:
    backup(ready, "--vm", "alpha")
    words = ("restore", "vm", points(ready)[0]["id"], "--repository", "main", "--pool", "lab", "--name", "copy")
    error = ready(*words, "--network", "prodution=lab", "--dry-run", status=5)["error"]
    assert error["code"] == "restore.network-not-in-point"
    assert "eth0" in error["next_step"]


def test_all_and_named_vms_together_are_refused(ready: Cli) -> None:
    assert backup(ready, "--all", "--vm", "alpha", status=2)["error"]["code"] == "backup.selection-ambiguous"


def test_no_repository_is_made_when_its_entry_could_not_be_kept(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = Cli(home=tmp_path / "file" / "home", capsys=cli.capsys)
    error = blocked("repository", "create", "main", str(tmp_path / "repository"), status=1)["error"]
    assert error["code"] == "config.not-writable"
    assert not (tmp_path / "repository").exists()


def test_a_backup_after_a_verification_stores_the_damaged_blocks_anew(ready: Cli, tmp_path: Path) -> None:
    backup(ready, "--vm", "alpha")
    for pack in (tmp_path / "repository" / "packs").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            data[len(data) // 3] ^= 0x40
            pack.write_bytes(data)
    ready("point", "verify", "--repository", "main", status=6)
    report = backup(ready, "--vm", "alpha")
    assert report["run"]["result"]["vms"][0]["disks"][0]["source"] == "full", "changes against damage are not enough"
    newest = points(ready)[-1]["id"]
    assert ready("point", "verify", newest, "--repository", "main")["damage"] == []
