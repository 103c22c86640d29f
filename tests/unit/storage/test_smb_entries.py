"""What a server says a folder holds is read exactly, or refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.storage.smb_file import SmbEntry, parse_entries

FOLDER = 0x10
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
ENTRIES = st.lists(st.tuples(NAMES, st.booleans(), st.integers(0, 2**62)), min_size=1, max_size=5)


def page_of(entries: list[tuple[str, bool, int]]) -> bytes:
    page = b""
    for number, (name, is_folder, length) in enumerate(entries):
        raw = name.encode("utf-16-le")
        size = 64 + len(raw) + -(64 + len(raw)) % 8
        step = size if number < len(entries) - 1 else 0
        head = struct.pack("<IIqqqqqqII", step, 0, 0, 0, 116444736000000000, 0, length, 0, FOLDER * is_folder, len(raw))
        page += (head + raw).ljust(size, b"\0")
    return page


@given(entries=ENTRIES)
def test_names_lengths_and_kinds_come_out_as_they_went_in(entries: list[tuple[str, bool, int]]) -> None:
    expected = [
        SmbEntry(name=name, is_folder=is_folder, length_bytes=length, written_s=0.0)
        for name, is_folder, length in entries
        if name not in (".", "..")
    ]
    assert list(parse_entries(page_of(entries))) == expected


@given(entries=ENTRIES, data=st.data())
def test_a_spoiled_page_is_refused_or_another(entries: list[tuple[str, bool, int]], data: st.DataObject) -> None:
    page = bytearray(page_of(entries))
    if data.draw(st.booleans()):
        page[data.draw(st.integers(0, len(page) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del page[data.draw(st.integers(0, len(page) - 1)) :]
    try:
        found = list(parse_entries(bytes(page)))
    except OSError:
        return
    assert all(each.length_bytes >= 0 for each in found)


@given(page=st.binary(max_size=300))
def test_rubbish_ends(page: bytes) -> None:
    try:
        assert len(list(parse_entries(page))) <= len(page)
    except OSError:
        return


def test_an_empty_page_is_refused() -> None:
    with pytest.raises(OSError, match="breaks off"):
        list(parse_entries(b""))
