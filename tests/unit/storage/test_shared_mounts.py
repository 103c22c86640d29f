"""Folders that two machines have mounted: each lists what the other has just stored, not what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.storage import PosixStore
from holdfast.storage.mounts import Mount
from holdfast.storage.posix_list import list_folder
from tests.support.sshfs_mount import new_sshfs_views

FIRST, SECOND = "leases/" + "a" * 32, "leases/" + "b" * 32


def listed(store: PosixStore, prefix: str = "leases/") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_a_listing_shows_at_once_what_another_machine_stored_and_deleted() -> None:
    here, there = new_sshfs_views()
    ours = PosixStore(here, create=True)
    theirs = PosixStore(there)
    assert listed(ours) == []
    theirs.put(f"{FIRST}/00000000", b"")
    assert listed(ours) == [f"{FIRST}/00000000"]
    theirs.put(f"{FIRST}/00000001", b"")
    theirs.delete(f"{FIRST}/00000000")
    theirs.put(f"{SECOND}/00000000", b"")
    assert listed(ours) == [f"{FIRST}/00000001", f"{SECOND}/00000000"]
    assert listed(ours, f"{FIRST}/") == [f"{FIRST}/00000001"]


@pytest.mark.parametrize(
    ("kind", "is_shared"),
    [("nfs4", True), ("nfs", True), ("cifs", True), ("fuse.sshfs", True), ("virtiofs", True), ("ext4", False)],
)
def test_what_other_machines_may_change_is_known_by_its_kind(kind: str, *, is_shared: bool) -> None:
    assert Mount(kind=kind, folder="/srv", source="x", options=frozenset()).is_shared is is_shared


def test_every_folder_on_the_way_is_looked_at_anew_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "packs" / "ab").mkdir(parents=True)
    looked: list[str] = []

    def look_anew(folder: Path) -> None:
        looked.append(folder.relative_to(tmp_path).as_posix())
        if folder.name == "ab":
            (folder / ("ab" * 16)).write_bytes(b"just now")

    found = [info.key for info in list_folder(tmp_path, "packs/", look_anew=look_anew)]
    assert found == ["packs/ab/" + "ab" * 16]
    assert looked == [".", "packs", "packs/ab"]


def test_a_folder_that_may_only_be_read_is_listed_as_it_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "x").write_bytes(b"")

    def look_anew(_: Path) -> None:
        raise PermissionError

    assert [info.key for info in list_folder(tmp_path, "points/", look_anew=look_anew)] == ["points/x"]
