"""A lab's folder is whole or refused: a lost or foreign file never becomes a new pool in silence."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core import HoldfastError, ManualClock, SystemEntropy
from holdfast.lab import LabFolderDamaged, RunningLab
from holdfast.lab.certificate import Certificate, LabCertificateDamaged, ensure_certificate
from holdfast.lab.disks import DiskStore, DiskStoreInUse, DiskStoreOutdated
from holdfast.lab.state import LabState
from tests.support.lab import tiny_lab
from tests.unit.lab.talk import refusal

Harm = Callable[[Path], None]


def _open(folder: Path) -> LabState:
    return LabState(folder, entropy=SystemEntropy())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a finished pool with one disk and one VM."""
    state = _open(tmp_path)
    assert state.is_new
    state.disks.create("disk", 1 << 20)
    state.db.create("VM", {"name_label": "kept"})
    state.finish("bare")
    state.close()
    return tmp_path


def _emptied(folder: Path) -> None:
    os.truncate(folder / "pool.db", 0)


def _removed(folder: Path) -> None:
    for path in folder.glob("pool.db*"):
        path.unlink()


def _replaced_by_an_empty_database(folder: Path) -> None:
    _removed(folder)
    with sqlite3.connect(folder / "pool.db") as connection:
        connection.execute("CREATE TABLE other (x)")


def _overwritten(folder: Path) -> None:
    path = folder / "pool.db"
    path.write_bytes(b"\xff" * path.stat().st_size)


def _halved(folder: Path) -> None:
    path = folder / "pool.db"
    os.truncate(path, path.stat().st_size // 2)


def _without_disks(folder: Path) -> None:
    (folder / "disks" / "disks.json").unlink()


@pytest.mark.parametrize(
    "harm", [_emptied, _removed, _replaced_by_an_empty_database, _overwritten, _halved, _without_disks]
)
def test_a_pool_of_which_a_part_is_lost_is_refused_and_never_replaced(folder: Path, harm: Harm) -> None:
    harm(folder)
    before = sorted((folder / "disks").glob("*"))
    for _ in range(2):
        with pytest.raises(LabFolderDamaged) as caught:
            _open(folder)
        assert str(folder) in str(caught.value)
    assert sorted((folder / "disks").glob("*")) == before


def test_a_finished_pool_is_continued(folder: Path) -> None:
    state = _open(folder)
    assert not state.is_new
    assert [row.fields["name_label"] for row in state.db.rows("VM")] == ["kept"]
    state.close()


def test_a_pool_whose_making_was_cut_off_is_made_anew_from_nothing(tmp_path: Path) -> None:
    first = _open(tmp_path)
    first.disks.create("half", 1 << 20)
    first.disks.write("half", 0, b"x")
    first.db.create("VM", {})
    first.close()  # as a kill leaves it: nothing says that it was finished
    second = _open(tmp_path)
    assert second.is_new and second.disks.uuids() == [] and second.db.count("VM") == 0
    assert not list((tmp_path / "disks").glob("layer-*"))
    second.finish("bare")
    second.close()
    third = _open(tmp_path)
    assert not third.is_new
    third.close()


def test_a_folder_of_another_version_is_refused_as_such(folder: Path) -> None:
    path = folder / "disks" / "disks.json"
    path.write_bytes(path.read_bytes().replace(b'"version":2', b'"version":1'))
    with pytest.raises(DiskStoreOutdated):
        _open(folder)


def test_a_refused_folder_is_let_go(folder: Path) -> None:
    with DiskStore(folder / "disks"), pytest.raises(DiskStoreInUse):
        _open(folder)
    good = (folder / "pool.db").read_bytes()
    _overwritten(folder)
    with pytest.raises(LabFolderDamaged):
        _open(folder)
    (folder / "pool.db").write_bytes(good)
    _open(folder).close()


@pytest.mark.parametrize("name", ["certificate.pem", "key.pem"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_certificate_that_is_no_good_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    def ensure() -> Certificate:
        return ensure_certificate(tmp_path, name="host", addresses=["127.0.0.1"], clock=ManualClock())

    made = ensure()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabCertificateDamaged) as caught:
        ensure()
    assert name in str(caught.value) and "remove both" in caught.value.next_step()
    made.certificate_path.unlink()
    made.key_path.unlink()
    assert ensure().fingerprint != made.fingerprint


@pytest.mark.slow(reason="a lab is started three times")
def test_a_lab_on_a_damaged_folder_does_not_start_and_lets_go_of_it(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="empty", nbd="none"):
        pass
    good = (tmp_path / "key.pem").read_bytes()
    (tmp_path / "key.pem").write_bytes(b"")
    with pytest.raises(HoldfastError), tiny_lab(tmp_path, scenario="empty", nbd="none"):
        pass
    (tmp_path / "key.pem").write_bytes(good)
    with tiny_lab(tmp_path, scenario="empty", nbd="none") as lab:
        shared = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
        assert not shared
        assert lab.pool.db.count("pool") == 1


def test_a_snapshot_on_a_full_machine_is_refused_as_by_a_full_repository(lab: RunningLab, api: Any) -> None:
    unsaved = lab.options.state_dir / "disks" / "disks.new"
    vm = api.VM.get_by_name_label("alpha")[0]
    before = (len(api.VM.get_all()), len(api.VDI.get_all()))
    unsaved.symlink_to("/dev/full")
    assert refusal(lambda: api.VM.snapshot(vm, "late"))[0] == "SR_BACKEND_FAILURE_44"
    assert (len(api.VM.get_all()), len(api.VDI.get_all())) == before
    unsaved.unlink()
    api.VM.snapshot(vm, "later")
