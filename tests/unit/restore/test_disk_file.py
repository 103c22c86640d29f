"""The file that a disk is written to: whole under its name or not there, whatever happens on the way."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.core import MIB, ExitStatus, HoldfastError, Retry
from holdfast.restore.disk_file import create_disk_file

CONTENT = bytes(range(256)) * 4096


def aligned(content: bytes) -> memoryview:
    buffer = mmap.mmap(-1, len(content))
    buffer[:] = content
    return memoryview(buffer)


def write(path: Path, *, data: Any = CONTENT, room_bytes: int = 0) -> None:
    with create_disk_file(path, room_bytes=room_bytes) as file:
        file.set_size(3 * MIB)
        file.write(MIB, data)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "data", [CONTENT, aligned(CONTENT), aligned(CONTENT)[: MIB - 512]], ids=["heap", "pages", "odd"]
)
def test_what_was_written_is_in_the_file(tmp_path: Path, data: Any) -> None:
    write(tmp_path / "disk", data=data)
    assert (tmp_path / "disk").read_bytes() == (bytes(MIB) + bytes(data)).ljust(3 * MIB, b"\0")
    assert names(tmp_path) == ["disk"]


def test_where_nothing_goes_past_the_cache_everything_goes_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.open

    def without_direct(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return original(path, flags, mode)

    monkeypatch.setattr(os, "open", without_direct)
    write(tmp_path / "disk", data=aligned(CONTENT))
    assert (tmp_path / "disk").read_bytes()[MIB : 2 * MIB] == CONTENT


def test_the_name_appears_when_everything_is_durable(tmp_path: Path) -> None:
    with create_disk_file(tmp_path / "disk", room_bytes=0) as file:
        file.write(0, b"x")
        assert names(tmp_path) == ["disk.part"]
    assert names(tmp_path) == ["disk"]


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), create_disk_file(tmp_path / "disk", room_bytes=0) as file:
        file.write(0, b"x")
        raise KeyError
    assert names(tmp_path) == []


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError) as caught, create_disk_file(tmp_path / "disk", room_bytes=0):
        (tmp_path / "disk").write_text("mine")
    assert caught.value.code == "restore.file-exists"
    assert (tmp_path / "disk").read_text() == "mine"
    assert names(tmp_path) == ["disk"]


def test_what_a_crash_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "disk.part").write_bytes(b"half" * MIB)
    write(tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == bytes(MIB) + CONTENT + bytes(MIB)


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    other = os.open(tmp_path / "disk.part", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(HoldfastError) as caught:
            write(tmp_path / "disk")
    finally:
        os.close(other)
    assert (caught.value.code, caught.value.retry) == ("restore.file-busy", Retry.LATER)
    assert names(tmp_path) == ["disk.part"]


def test_a_file_system_without_links_gets_the_name_by_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "disk")
    assert names(tmp_path) == ["disk"]


def test_too_little_room_is_told_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError) as caught:
        write(tmp_path / "disk", room_bytes=1 << 60)
    assert (caught.value.code, caught.value.exit_status) == ("restore.file-system-full", ExitStatus.NO_SPACE)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "restore.file-system-full"), (errno.EIO, "restore.file-not-written")]
)
def test_what_the_file_system_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(HoldfastError) as caught:
        write(tmp_path / "disk")
    assert caught.value.code == code
    assert names(tmp_path) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError) as caught:
        write(tmp_path / "nowhere" / "disk")
    assert caught.value.code == "restore.file-not-written"
