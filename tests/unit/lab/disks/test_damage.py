"""Files of the store that were lost, cut or changed, and a machine without room: refused, never read as zeros."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.core import KIB, MIB
from holdfast.lab.disks import DisksDamaged, DiskStore, DiskStoreFull

SIZE_BYTES = 8 * MIB

Harm = Callable[[Path], None]


def _removed(path: Path) -> None:
    path.unlink()


def _emptied(path: Path) -> None:
    os.truncate(path, 0)


def _halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _without_its_last_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def _zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _last_page_zeroed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096] + bytes(4096))


def _random(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _one_number_changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4096 + 9] ^= 1
    path.write_bytes(content)


MAP_HARMS = (
    _removed,
    _emptied,
    _halved,
    _without_its_last_page,
    _zeroed,
    _last_page_zeroed,
    _random,
    _one_number_changed,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed store of a tracked disk with a snapshot, and of another disk."""
    with DiskStore(tmp_path / "disks") as store:
        store.create("live", SIZE_BYTES)
        store.enable_cbt("live")
        store.snapshot("live", "before")
        store.write("live", 3 * MIB, b"changed")
        store.create("other", SIZE_BYTES)
        store.write("other", 0, bytes(range(256)) * 4 * KIB)
    return tmp_path / "disks"


def _only(folder: Path, kind: str, *, held: bool) -> Path:
    """Return the newest file of a kind that holds something, or nothing but its head."""
    return max(path for path in folder.glob(kind) if (path.stat().st_size > 4096) is held)


@pytest.mark.parametrize("harm", MAP_HARMS)
def test_a_change_log_that_was_harmed_is_never_read_as_unchanged(folder: Path, harm: Harm) -> None:
    harm(_only(folder, "log-*.map", held=True))
    with pytest.raises(DisksDamaged) as caught:
        DiskStore(folder)
    assert caught.value.disks == ["live"]


@pytest.mark.parametrize("harm", MAP_HARMS)
def test_a_layer_whose_map_was_harmed_is_refused_by_the_names_of_its_disks(folder: Path, harm: Harm) -> None:
    path = _only(folder, "layer-*.map", held=True)
    harm(path)
    with pytest.raises(DisksDamaged) as caught:
        DiskStore(folder)
    assert caught.value.disks == ["other"]
    assert path.name in str(caught.value) and "other" in str(caught.value)


@pytest.mark.parametrize("harm", [_removed, _emptied, _halved])
def test_a_layer_whose_data_was_lost_is_refused(folder: Path, harm: Harm) -> None:
    harm(max(folder.glob("layer-*.data")))
    with pytest.raises(DisksDamaged) as caught:
        DiskStore(folder)
    assert caught.value.disks == ["other"]


def test_a_map_that_nothing_was_marked_in_is_missed_too(folder: Path) -> None:
    _only(folder, "log-*.map", held=False).unlink()
    with pytest.raises(DisksDamaged):
        DiskStore(folder)


def test_a_harmed_base_copy_concerns_every_disk_that_stands_on_it(folder: Path) -> None:
    with DiskStore(folder) as store:
        store.snapshot("other", "copy")
    _emptied(max(folder.glob("layer-*.data")))
    with pytest.raises(DisksDamaged) as caught:
        DiskStore(folder)
    assert {"other", "copy"} <= set(caught.value.disks)


def test_a_refusal_changes_nothing_and_the_folder_is_let_go(folder: Path) -> None:
    path = _only(folder, "log-*.map", held=True)
    good = path.read_bytes()
    _emptied(path)
    before = sorted(each.name for each in folder.iterdir())
    for _ in range(2):
        with pytest.raises(DisksDamaged):
            DiskStore(folder)
    assert sorted(each.name for each in folder.iterdir()) == before
    path.write_bytes(good)
    with DiskStore(folder) as store:
        assert store.changed_blocks("before", "live").sum() == 1


def test_a_page_that_the_head_does_not_count_yet_is_believed(folder: Path) -> None:
    """A lab that is killed between the two writes leaves this."""
    with DiskStore(folder) as store:
        store.create("tracked", SIZE_BYTES)
        store.enable_cbt("tracked")
        store.snapshot("tracked", "earlier")
        path = max(folder.glob("log-*.map"))
        uncounted = path.read_bytes()
        store.write("tracked", 0, b"x")
    path.write_bytes(uncounted + path.read_bytes()[4096:])
    with DiskStore(folder) as store:
        assert store.changed_blocks("earlier", "tracked").sum() == 1


def test_the_last_granules_of_any_size_are_held_to_their_end(tmp_path: Path) -> None:
    with DiskStore(tmp_path) as store:
        store.create("odd", 64 * KIB + 512)
        store.write("odd", 64 * KIB, b"end")
        store.resize("odd", 256 * KIB)
        store.create("early", SIZE_BYTES)
        store.write("early", 0, b"x")
    with DiskStore(tmp_path) as store:
        assert store.read("odd", 64 * KIB, 4) == b"end\0"
        assert store.read("early", 0, 2) == b"x\0"


# A machine without room


def _fill(folder: Path) -> None:
    """Let the next save of the list find no room."""
    (folder / "disks.new").unlink(missing_ok=True)
    (folder / "disks.new").symlink_to("/dev/full")


def test_a_change_of_the_tree_that_finds_no_room_did_not_happen(folder: Path) -> None:
    with DiskStore(folder) as store:
        before = (store.uuids(), store.chain("live"), store.size_bytes("live"))
        _fill(folder)
        for change in (
            lambda: store.snapshot("live", "late"),
            lambda: store.clone("other", "twin"),
            lambda: store.create("new", SIZE_BYTES),
            lambda: store.resize("live", 2 * SIZE_BYTES),
            lambda: store.destroy("before"),
            lambda: store.data_destroy("before"),
            lambda: store.disable_cbt("live"),
        ):
            with pytest.raises(DiskStoreFull):
                change()
            assert (store.uuids(), store.chain("live"), store.size_bytes("live")) == before
        (folder / "disks.new").unlink()
        store.write("live", 5 * MIB, b"after")
        assert store.changed_blocks("before", "live").sum() == 2
        store.snapshot("live", "late")
    with DiskStore(folder) as store:
        assert store.read("late", 3 * MIB, 7) == b"changed" and store.read("live", 5 * MIB, 5) == b"after"


def test_a_write_that_finds_no_room_is_refused_and_holds_nothing(folder: Path) -> None:
    with DiskStore(folder) as store:
        store.create("new", SIZE_BYTES)
        number = max(path.stem for path in folder.glob("layer-*.map"))
        (folder / f"{number}.data").symlink_to("/dev/full")
        with pytest.raises(DiskStoreFull):
            store.write("new", 0, b"too much")
        assert store.used_bytes("new") == 0
