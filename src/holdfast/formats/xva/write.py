"""Writes an XVA forward: the description, the blocks of one disk after the other, the end.

Nothing is kept but the open disk's last number, so memory does not grow with the archive. Invariant: the pieces that
were returned so far are the beginning of a valid archive, and a data member is always followed by its checksum.
"""

from __future__ import annotations

import xxhash

from holdfast.formats.xva.layout import (
    BLOCK_BYTES,
    CHECKSUM_CHARACTERS,
    CHECKSUM_SUFFIX,
    CHECKSUM_WORD,
    DESCRIPTION_NAME,
    END_BYTES,
    HEADER,
    MODE_WORD,
    NUMBERS_MAX,
    OWNER_WORD,
    RECORD_BYTES,
    SUM_AT,
    SUM_WORD,
    TIME_WORD,
)

__all__ = ["XvaWriter", "block_checksum", "xva_header"]

Bytes = bytes | bytearray | memoryview


def xva_header(name: str, length_bytes: int, *, time_s: int = 0) -> bytes:
    """Return the header record of a member."""
    spelled = name.encode("ascii")
    assert len(spelled) <= 100, name
    head = bytearray(RECORD_BYTES)
    owner, blank = OWNER_WORD, b" " * 8
    HEADER.pack_into(head, 0, spelled, MODE_WORD, owner, owner, TIME_WORD % length_bytes, TIME_WORD % time_s, blank)
    head[SUM_AT] = SUM_WORD % sum(head)
    return bytes(head)


def block_checksum(data: Bytes) -> str:
    """Return what a checksum member says about the data."""
    return CHECKSUM_WORD % xxhash.xxh64_intdigest(data)


class XvaWriter:
    """Turns content into the pieces of an archive; the caller sends them in the order in which they are returned."""

    def __init__(self) -> None:
        self._disk = ""
        self._number = -1
        self._has_description = False

    def description(self, body: bytes, *, time_s: int) -> list[Bytes]:
        """Return the first member."""
        assert not self._has_description
        self._has_description = True
        return [xva_header(DESCRIPTION_NAME, len(body), time_s=time_s), body, bytes(-len(body) % RECORD_BYTES)]

    def block(self, disk: str, number: int, data: Bytes) -> list[Bytes]:
        """Return one block of a disk and its checksum. Numbers of a disk ascend; those left out are blocks of zeros.

        Number 0 begins a disk, even the same once more: a pool writes a disk for each drive that it is in. Empty data
        is a sign of life: it takes a number and moves nothing.
        """
        assert self._has_description
        assert len(data) <= BLOCK_BYTES
        assert 0 <= number < NUMBERS_MAX
        assert number == 0 or disk != self._disk or number > self._number, (disk, number)
        self._disk, self._number = disk, number
        name = f"{disk}/{number:08d}"
        checksum = block_checksum(data).encode("ascii")
        tail = bytes(-len(data) % RECORD_BYTES) + xva_header(name + CHECKSUM_SUFFIX, CHECKSUM_CHARACTERS)
        return [xva_header(name, len(data)), data, tail + checksum.ljust(RECORD_BYTES, b"\0")]

    def end(self) -> list[Bytes]:
        """Return the end of the archive."""
        assert self._has_description
        return [bytes(END_BYTES)]
