"""An archive is written and read in one pass and the memory of one block, and no wrong byte comes through."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tracemalloc
from collections.abc import Iterable

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.xva import (
    XVA_BLOCK_BYTES,
    XvaArchive,
    XvaDamaged,
    XvaError,
    XvaReader,
    XvaTruncated,
    XvaWriter,
    xva_header,
)
from tests.support.golden import golden_path

MIB = XVA_BLOCK_BYTES
Block = tuple[str, int, bytes]


def joined(pieces: Iterable[bytes | bytearray | memoryview]) -> bytes:
    return b"".join(bytes(piece) for piece in pieces)


def packed(*blocks: Block, description: bytes = b"<value/>") -> bytes:
    writer = XvaWriter()
    archive = joined(writer.description(description, time_s=7))
    for disk, number, data in blocks:
        archive += joined(writer.block(disk, number, data))
    return archive + joined(writer.end())


def opened(archive: bytes) -> XvaReader:
    reader = XvaReader(io.BytesIO(archive))
    reader.read_description()
    return reader


def read_blocks(archive: bytes) -> list[tuple[str, int, bytes]]:
    return [(block.disk, block.offset_bytes, bytes(block.data)) for block in opened(archive).blocks()]


def member(name: str, data: bytes) -> bytes:
    return xva_header(name, len(data)) + data + bytes(-len(data) % 512)


class Dribble:
    """A stream that gives a few bytes at a time, as sockets do."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readinto(self, buffer: memoryview, /) -> int:
        return self._inner.readinto(buffer[:4099])


# -- written, read, equal

disks = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([512, 1024, 4096])), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)


@given(disks)
def test_what_was_written_is_read_back_in_its_place(shape: list[list[tuple[int, int]]]) -> None:
    blocks: list[Block] = []
    places: list[tuple[str, int, bytes]] = []
    unit = shape[0][0][1]
    for index, steps in enumerate(shape):
        number, place = -1, 0
        for seed, (gap, length_bytes) in enumerate(steps):
            number += gap + 1
            place += gap * unit
            data = bytes([seed + 1]) * length_bytes
            blocks.append((f"Ref:{index}", number, data))
            places.append((f"Ref:{index}", place, data))
            place += length_bytes
    # Number 0 begins a disk: those that begin with a gap follow another disk's name.
    assert read_blocks(packed(*blocks)) == places


@pytest.mark.parametrize("name", ["export.xva", "replay/three.xva.gz"])
def test_a_pools_own_export_is_rewritten_to_the_byte(name: str) -> None:
    data = golden_path(name).read_bytes()
    archive = gzip.decompress(data) if name.endswith(".gz") else data
    reader = XvaReader(Dribble(archive))
    writer = XvaWriter()
    again = joined(writer.description(reader.read_description(), time_s=int(archive[136:147], 8)))
    for block in reader.blocks():
        again += joined(writer.block(block.disk, block.offset_bytes // MIB, block.data))
    assert again + joined(writer.end()) == archive


def test_python_reads_the_archive_as_a_tar() -> None:
    archive = packed(("Ref:3", 0, b"a" * 512), ("Ref:3", 9, b"b" * 1024), description=b"<value>x</value>")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = tar.getnames()
        assert names == [
            "ova.xml",
            "Ref:3/00000000",
            "Ref:3/00000000.xxhash",
            "Ref:3/00000009",
            "Ref:3/00000009.xxhash",
        ]
        told = tar.extractfile("Ref:3/00000009.xxhash")
        assert told is not None
        assert told.read().decode() == xxhash.xxh64_hexdigest(b"b" * 1024).upper()
        assert tar.getmember("ova.xml").mtime == 7
        assert {info.mode for info in tar} == {0o400}


# -- numbers count, they are no places


def test_a_sign_of_life_takes_a_number_and_moves_nothing() -> None:
    archive = packed(("Ref:1", 0, b"a" * MIB), ("Ref:1", 5, b""), ("Ref:1", 7, b"b" * 512))
    # One block, a gap of four, nothing, a gap of one.
    assert [place for _, place, _ in read_blocks(archive)] == [0, 6 * MIB]


def test_gaps_are_as_long_as_the_first_block_of_the_first_disk() -> None:
    archive = packed(("Ref:1", 0, b"a" * 512), ("Ref:2", 0, b"b" * 4096), ("Ref:2", 3, b"c" * 512))
    assert read_blocks(archive)[-1] == ("Ref:2", 4096 + 2 * 512, b"c" * 512)


def test_old_checksums_are_compared_too() -> None:
    data = b"d" * 512
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
    begin = member("ova.xml", b"x") + member("Ref:1/00000000", data)
    assert read_blocks(begin + member("Ref:1/00000000.checksum", digest) + bytes(1024)) == [("Ref:1", 0, data)]
    with pytest.raises(XvaDamaged, match="checksum of 'Ref:1/00000000' is wrong"):
        read_blocks(begin + member("Ref:1/00000000.checksum", digest.upper()) + bytes(1024))


# -- refused, with the offset


@pytest.mark.slow(reason="reads the archive once for each of its bytes")
def test_no_flipped_bit_passes_unseen() -> None:
    archive = packed(("Ref:1", 0, b"a" * 512), ("Ref:1", 2, b"b" * 512), description=b"<x/>")
    right = read_blocks(archive)
    for at in range(len(archive)):
        broken = bytearray(archive)
        broken[at] ^= 1
        try:
            found = read_blocks(bytes(broken))
        except XvaError:
            continue
        # What a reader may pass over: the description, which has no checksum, and padding.
        assert found == right, f"byte {at}"


def test_a_cut_archive_says_where_it_ends() -> None:
    archive = packed(("Ref:1", 0, b"a" * 1024))
    for length_bytes in range(0, len(archive), 300):
        with pytest.raises(XvaTruncated) as caught:
            read_blocks(archive[:length_bytes])
        assert caught.value.offset_bytes == length_bytes


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([("x.xml", b"")], "does not begin with ova.xml"),
        ([("ova.xml", b""), ("x", b"a")], "no block of a disk"),
        ([("ova.xml", b""), ("Ref:1/00000000.xxhash", b"a")], "no block of a disk"),
        ([("ova.xml", b""), ("Ref:1/00000000", b"a")], "has no checksum"),
        ([("ova.xml", b""), ("Ref:1/00000000", b"a"), ("Ref:1/00000001", b"a")], "no checksum of"),
        ([("ova.xml", b""), ("Ref:1/00000000", b"a" * (MIB + 1))], "longer than a block"),
    ],
)
def test_members_that_mean_nothing_are_refused(members: list[tuple[str, bytes]], why: str) -> None:
    with pytest.raises(XvaDamaged, match=why):
        read_blocks(b"".join(member(*each) for each in members) + bytes(1024))


@pytest.mark.parametrize(
    "order", [(("Ref:1", 1), ("Ref:1", 1)), (("Ref:1", 2), ("Ref:1", 1)), (("Ref:1", 0), ("Ref:2", 0), ("Ref:1", 1))]
)
def test_blocks_out_of_order_are_refused(order: tuple[tuple[str, int], ...]) -> None:
    body = member("ova.xml", b"x")
    for disk, number in order:
        body += joined(_alone(disk, number))
    with pytest.raises(XvaDamaged, match=r"comes behind|torn apart"):
        read_blocks(body + bytes(1024))


def _alone(disk: str, number: int) -> list[bytes | bytearray | memoryview]:
    writer = XvaWriter()
    writer.description(b"", time_s=0)
    return writer.block(disk, number, b"a" * 512)


def test_a_description_that_claims_too_much_costs_no_memory() -> None:
    with pytest.raises(XvaDamaged, match="claims"):
        XvaReader(io.BytesIO(xva_header("ova.xml", 1 << 32) + bytes(1024))).read_description()


def test_any_disk_is_read_in_the_memory_of_a_block() -> None:
    archive = packed(*((("Ref:1", number, bytes([number]) * MIB)) for number in range(12)))
    tracemalloc.start()
    try:
        reader = opened(archive)
        total = sum(len(block.data) for block in reader.blocks())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 12 * MIB
    assert peak < 3 * MIB


# -- the members themselves


def test_a_lone_zero_record_is_passed_over_and_two_are_the_end() -> None:
    archive = XvaArchive(io.BytesIO(bytes(512) + member("a", b"1") + bytes(512) + member("b", b"2") + bytes(1024)))
    names = []
    while (found := archive.next_member()) is not None:
        names.append((found.name, found.offset_bytes))
    assert names == [("a", 512), ("b", 2048)]


def test_what_is_left_of_a_member_is_skipped() -> None:
    archive = XvaArchive(Dribble(member("a", b"x" * 9000) + member("b", b"yes") + bytes(1024)))
    archive.next_member()
    assert archive.read(3) == b"xxx"
    found = archive.next_member()
    assert found is not None
    assert archive.read(found.length_bytes) == b"yes"
