"""The main job by the command line: back up, list, change, back up again, lose, restore, verify, delete."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.lab import RunningLab
from tests.faces.conftest import Cli, backup, leftovers, points, write_as_guest
from tests.support.lab import logged_in

pytestmark = pytest.mark.slow(reason="a lab pool, several whole runs")


def _destroy(lab: RunningLab, vm_name: str) -> None:
    with logged_in(lab) as session:
        vm = session.xenapi.VM.get_by_name_label(vm_name)[0]
        vdis = [session.xenapi.VBD.get_VDI(vbd) for vbd in session.xenapi.VM.get_VBDs(vm)]
        vdis = [vdi for vdi in vdis if vdi != "OpaqueRef:NULL"]
        session.xenapi.VM.hard_shutdown(vm)
        session.xenapi.VM.destroy(vm)
        for vdi in vdis:
            session.xenapi.VDI.destroy(vdi)


def test_a_destroyed_vm_comes_back_bit_identical_with_its_name_cards_and_disks(ready: Cli, lab: RunningLab) -> None:
    before = next(each for each in ready("vm", "list", "lab") if each["name"] == "beta")
    backup(ready, "--vm", "beta")
    wanted = {disk["position"]: lab.control.sha256(disk["uuid"]) for disk in before["disks"]}
    point = points(ready)[0]
    _destroy(lab, "beta")

    report = ready("restore", "vm", point["id"], "--repository", "main", "--pool", "lab")

    result = report["run"]["result"]
    assert result["vm_name"] == "beta"
    assert {disk["position"]: lab.control.sha256(disk["disk"]) for disk in result["disks"]} == wanted
    after = next(each for each in ready("vm", "list", "lab") if each["name"] == "beta")
    assert [disk["size_bytes"] for disk in after["disks"]] == [disk["size_bytes"] for disk in before["disks"]]
    assert leftovers(lab) == []


def test_an_increment_reads_what_changed_and_both_points_restore(ready: Cli, lab: RunningLab) -> None:
    backup(ready, "--vm", "alpha")
    disk = write_as_guest(lab, "alpha", offset_bytes=33 * 1024 * 1024 + 5, data=b"holdfast" * 100)
    first_hash = lab.control.sha256(_snapshot_of_first_point(ready))
    report = backup(ready, "--vm", "alpha")
    assert report["run"]["status"] == "succeeded"
    increment = report["run"]["result"]["vms"][0]["disks"][0]
    assert increment["source"] == "cbt"
    assert increment["read_bytes"] == 64 * 1024
    assert increment["new_bytes"] == 64 * 1024

    old, new = points(ready)
    assert new["previous"] == old["id"]
    for point, wanted in ((old, first_hash), (new, lab.control.sha256(disk))):
        report = ready("restore", "vm", point["id"], "--repository", "main", "--pool", "lab", "--name", point["id"])
        assert lab.control.sha256(report["run"]["result"]["disks"][0]["disk"]) == wanted


def _snapshot_of_first_point(cli: Cli) -> str:
    run = cli("run", "list")[-1]["run_id"]
    lines = cli("run", "show", run)["ledger"]
    return str(next(line["external_id"] for line in lines if line["kind"] == "disk-snapshot"))


def test_a_full_read_on_request_stores_nothing_that_is_known(ready: Cli) -> None:
    backup(ready, "--vm", "alpha")
    disk = backup(ready, "--vm", "alpha", "--full")["run"]["result"]["vms"][0]["disks"][0]
    assert disk["source"] == "full"
    assert disk["read_bytes"] > 0
    assert disk["new_bytes"] == 0


def test_retention_keeps_the_newest_and_garbage_collection_gives_space_back(ready: Cli, lab: RunningLab) -> None:
    for number in range(4):
        write_as_guest(lab, "alpha", offset_bytes=number * 65536, data=bytes([number + 1]) * 65536)
        backup(ready, "--vm", "alpha", "--keep", "2")
    kept = points(ready)
    assert len(kept) == 2
    ready("repository", "gc", "main")
    assert ready("point", "verify", "--repository", "main")["damage"] == []
    report = ready("restore", "vm", kept[-1]["id"], "--repository", "main", "--pool", "lab", "--name", "again")
    assert report["run"]["status"] == "succeeded"


def test_only_the_newest_reference_stays_on_the_pool(ready: Cli, lab: RunningLab) -> None:
    for _ in range(3):
        backup(ready, "--all")
    assert leftovers(lab) == []
    assert len(lab.control.ours()) == 3, "one reference for each of the three disks"


def test_the_plan_is_told_before_anything_is_touched(ready: Cli, lab: RunningLab) -> None:
    plan = backup(ready, "--all", "--dry-run")["plan"]
    assert any("beta: 2 disks" in line for line in plan)
    assert lab.control.ours() == []
    backup(ready, "--vm", "beta")
    told = ready.text("restore", "vm", points(ready)[0]["id"], "--repository", "main", "--pool", "lab", "--dry-run")
    assert "identity: the original VM still exists" in told
    assert "MAC new" in told
    assert len(ready("vm", "list", "lab")) == 2


def test_every_list_is_there_for_people_and_for_programs(ready: Cli) -> None:
    backup(ready, "--vm", "alpha")
    point = points(ready)[0]
    for words in (
        ("pool", "list"),
        ("pool", "show", "lab"),
        ("vm", "list", "lab"),
        ("repository", "list"),
        ("repository", "show", "main"),
        ("repository", "key", "list", "main"),
        ("repository", "gc", "main", "--plan"),
        ("repository", "gc", "main", "--thorough", "--budget", "5min"),
        ("repository", "usage", "main"),
        ("repository", "usage", "main", "--exact", "--by-point"),
        ("point", "delete", point["id"], "--repository", "main", "--dry-run"),
        ("point", "list", "--repository", "main", "--vm", "alpha"),
        ("point", "show", point["id"][:18], "--repository", "main"),
        ("point", "verify", point["id"], "--repository", "main"),
        ("run", "list"),
        ("run", "show", point["run"]),
    ):
        assert ready.text(*words).strip()
        assert ready(*words) is not None


def test_a_deleted_point_is_gone_and_the_others_stay_whole(ready: Cli) -> None:
    backup(ready, "--vm", "alpha")
    backup(ready, "--vm", "alpha")
    old, new = points(ready)
    ready("point", "delete", old["id"], "--repository", "main", "--yes")
    assert [each["id"] for each in points(ready)] == [new["id"]]
    ready("repository", "gc", "main")
    assert ready("point", "verify", "--repository", "main")["damage"] == []


def test_another_machine_opens_the_repository_with_the_recovery_key(
    ready: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = ready("repository", "create", "second", str(tmp_path / "second"), "--passphrase-file", _file(tmp_path))
    backup(ready, "--vm", "alpha")
    other = Cli(home=tmp_path / "other-machine", capsys=ready.capsys)
    monkeypatch.setattr("platform.node", lambda: "replacement")
    key_file = tmp_path / "recovery"
    key_file.write_text(created["recovery_key"])
    place = str(tmp_path / "second")
    other("repository", "connect", "second", place, "--recovery-key-file", str(key_file))
    assert other("point", "list", "--repository", "second") == {"points": [], "damaged": []}
    names = {each["name"] for each in other("repository", "key", "list", "second")}
    assert {"recovery", "passphrase", "machine-replacement"} <= names
    third = Cli(home=tmp_path / "third-machine", capsys=ready.capsys)
    third("repository", "connect", "second", place, "--passphrase-file", _file(tmp_path))


def _file(folder: Path) -> str:
    path = folder / "passphrase"
    path.write_text("a long passphrase\n")
    return str(path)
