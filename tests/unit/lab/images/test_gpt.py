"""Partition tables: written, read, and refused when damaged."""

from __future__ import annotations

import uuid as uuids

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import KIB, MIB
from holdfast.lab.images import GptDamaged, Partition, pack_gpt, read_gpt

DISK_UUID = uuids.UUID("10000000-0000-4000-8000-000000000001")
PART_UUID = uuids.UUID("20000000-0000-4000-8000-000000000002")
SIZE_BYTES = 8 * MIB
ROOT = Partition.filling(SIZE_BYTES, uuid=PART_UUID, name="root ß")
TABLE_BYTES = 34 * 512


def disk() -> bytearray:
    head, tail = pack_gpt([ROOT], size_bytes=SIZE_BYTES, disk_uuid=DISK_UUID, is_bootable=True)
    content = bytearray(SIZE_BYTES)
    content[: len(head)] = head
    content[-len(tail) :] = tail
    return content


def partitions(content: bytes | bytearray) -> list[Partition]:
    return read_gpt(lambda offset, length: bytes(content[offset : offset + length]), size_bytes=len(content))


def test_what_is_written_is_read_back() -> None:
    assert partitions(disk()) == [ROOT]
    assert ROOT.offset_bytes == MIB
    assert ROOT.length_bytes == 6 * MIB


def test_the_disk_has_a_protective_record_that_old_tools_believe() -> None:
    content = disk()
    assert content[510:512] == b"\x55\xaa"
    assert content[450] == 0xEE
    assert content[512:520] == b"EFI PART"
    assert content[-512:-504] == b"EFI PART"


@given(st.integers(512, TABLE_BYTES - 1), st.integers(1, 255))
def test_a_damaged_first_copy_is_made_up_for_by_the_second(place: int, flip: int) -> None:
    content = disk()
    content[place] ^= flip
    assert partitions(content) == [ROOT]


@given(st.integers(512, 512 + 91), st.integers(512, 512 + 91), st.integers(1, 255))
def test_two_damaged_copies_are_refused(first: int, second: int, flip: int) -> None:
    content = disk()
    content[first] ^= flip
    content[SIZE_BYTES - 1024 + second] ^= flip
    with pytest.raises(GptDamaged):
        partitions(content)


@pytest.mark.parametrize("size_bytes", [512, 1536, 64 * KIB])
def test_a_disk_without_a_table_is_refused(size_bytes: int) -> None:
    with pytest.raises(GptDamaged):
        partitions(bytes(size_bytes))
