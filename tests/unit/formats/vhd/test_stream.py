"""A VHD stream is read in one pass and one block of memory, and whatever is wrong with it is refused with an offset."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import limits
from holdfast.formats.vhd import (
    VHD_EPOCH,
    VhdDamaged,
    VhdError,
    VhdFile,
    VhdInterrupted,
    VhdStreamReader,
    VhdTruncated,
    VhdUnsupported,
    allocated_vhd_blocks,
    plan_vhd,
    read_vhd_head,
    stream_vhd,
)
from holdfast.model import Extent
from tests.support.vhd import KIB64, BlockSpec, MemoryDisk, VhdSpec, pattern

MIB = 1024 * 1024
PARENT = uuid.UUID(int=0xB)
ERROR_PAGE = (
    b"HTTP/1.1 500 Internal Error\r\ncontent-length: 200\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n"
    b"<html><body><h1>HTTP 500 internal server error</h1>An unexpected error occurred."
    b"<h1> Additional information </h1>Failure(&quot;the SR went away&quot;)</body></html>"
)


class Dribble:
    """A stream that gives a few bytes at a time, as sockets do."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readinto(self, buffer: memoryview, /) -> int:
        return self._inner.readinto(buffer[:4097])


class Endless:
    """A stream that never ends after its beginning."""

    def __init__(self, beginning: bytes) -> None:
        self._inner = io.BytesIO(beginning)
        self.given_bytes = 0

    def readinto(self, buffer: memoryview, /) -> int:
        got = self._inner.readinto(buffer) or len(buffer)
        self.given_bytes += got
        return got


def read_disk(reader: VhdStreamReader) -> bytes:
    """Return the disk that a stream carries, zeros where it carries nothing."""
    disk = bytearray(reader.size_bytes)
    for block in reader.blocks():
        disk[block.offset_bytes : block.offset_bytes + len(block.data)] = block.data
    return bytes(disk)


def read_all(data: bytes) -> bytes:
    return read_disk(VhdStreamReader(io.BytesIO(data)))


def small_vhd() -> tuple[bytes, bytes]:
    """Return a valid file with blocks 0 and 2, and the disk in it."""
    blocks = [BlockSpec(index=0, data=pattern(KIB64, seed=1)), BlockSpec(index=2, data=pattern(KIB64, seed=2))]
    disk = blocks[0].data + bytes(KIB64) + blocks[1].data + bytes(KIB64)
    return VhdSpec(blocks=blocks).pack(), disk


@pytest.mark.slow(reason="a property over sixty disks of up to 6 MiB")
@given(
    sectors=st.integers(1, 3 * 4096),
    filled=st.sets(st.integers(0, 3 * 32 - 1), max_size=6),
)
def test_what_is_written_is_read_back(sectors: int, filled: set[int]) -> None:
    content = bytearray(sectors * 512)
    for granule in filled:
        start = granule * KIB64
        content[start : start + KIB64] = pattern(KIB64, seed=granule)[: len(content[start : start + KIB64])]
    disk = MemoryDisk(bytes(content))
    blocks = allocated_vhd_blocks(disk.data_extents(), size_bytes=disk.size_bytes)
    plan = plan_vhd(disk.size_bytes, blocks, uuid=uuid.UUID(int=7), created_at=VHD_EPOCH)
    data = b"".join(bytes(piece) for piece in stream_vhd(plan, disk))
    reader = VhdStreamReader(io.BytesIO(data))
    assert len(data) == plan.length_bytes == reader.length_bytes
    assert reader.allocated_blocks.tolist() == blocks.tolist()
    assert (reader.size_bytes, reader.footer_uuid) == (disk.size_bytes, uuid.UUID(int=7))
    assert read_disk(reader) == disk.content
    assert reader.offset_bytes == len(data)


def test_a_stream_that_comes_in_small_pieces_is_the_same_stream() -> None:
    data, disk = small_vhd()
    assert read_disk(VhdStreamReader(Dribble(data))) == disk


def test_blocks_are_accepted_in_any_order_with_gaps_between() -> None:
    blocks = [BlockSpec(index=index, data=pattern(KIB64, seed=index)) for index in (3, 0, 2)]
    data = VhdSpec(blocks=blocks, gap_bytes=1536, table_offset=4096, header_offset=1024).pack()
    reader = VhdStreamReader(io.BytesIO(data))
    assert reader.allocated_blocks.tolist() == [0, 2, 3]
    assert [block.index for block in VhdStreamReader(io.BytesIO(data)).blocks()] == [3, 0, 2]
    assert read_disk(reader) == blocks[1].data + bytes(KIB64) + blocks[2].data + blocks[0].data


def test_a_sector_that_the_bitmap_does_not_claim_reads_as_zeros() -> None:
    claims = np.zeros(128, dtype=np.bool_)
    claims[[0, 5, 6, 127]] = True
    content = pattern(KIB64, seed=4)
    data = VhdSpec(blocks=[BlockSpec(index=1, data=content, claims=claims)]).pack()
    (block,) = VhdStreamReader(io.BytesIO(data)).blocks()
    expected = np.frombuffer(content, dtype=np.uint8).reshape(128, 512) * claims[:, None]
    assert bytes(block.data) == expected.tobytes()
    assert not block.is_whole
    assert block.present_extents() == [
        Extent(offset_bytes=KIB64, length_bytes=512),
        Extent(offset_bytes=KIB64 + 5 * 512, length_bytes=1024),
        Extent(offset_bytes=KIB64 + 127 * 512, length_bytes=512),
    ]


def test_a_whole_block_is_one_present_extent_clipped_to_the_disk() -> None:
    data = VhdSpec(size_bytes=KIB64 + 1024, blocks=[BlockSpec(index=1, data=pattern(KIB64, seed=4))]).pack()
    (block,) = VhdStreamReader(io.BytesIO(data)).blocks()
    assert block.is_whole
    assert len(block.data) == 1024
    assert block.present_extents() == [Extent(offset_bytes=KIB64, length_bytes=1024)]


def test_a_difference_names_its_parent() -> None:
    data = VhdSpec(disk_type=4, parent=PARENT).pack()
    reader = VhdStreamReader(io.BytesIO(data))
    assert reader.is_difference
    assert reader.parent_uuid == PARENT


def test_a_dynamic_disk_has_no_parent_whatever_its_header_holds() -> None:
    reader = VhdStreamReader(io.BytesIO(VhdSpec(parent=PARENT).pack()))
    assert not reader.is_difference
    assert reader.parent_uuid is None


def test_the_head_is_learned_without_reading_a_block() -> None:
    data, _ = small_vhd()
    stream = io.BytesIO(data)
    head = read_vhd_head(stream)
    assert head.allocated_blocks.tolist() == [0, 2]
    assert head.length_bytes == len(data)
    assert stream.tell() <= 2048


def test_an_upload_of_unknown_length_is_left_after_its_footer() -> None:
    data, disk = small_vhd()
    stream = io.BytesIO(data + b"the next request")
    assert read_disk(VhdStreamReader(stream, expects_end=False)) == disk
    assert stream.read() == b"the next request"


def test_anything_behind_the_footer_is_refused() -> None:
    data, _ = small_vhd()
    with pytest.raises(VhdDamaged, match="more behind the footer") as caught:
        read_all(data + b"x")
    assert caught.value.offset_bytes == len(data)


def test_a_stream_is_read_once() -> None:
    reader = VhdStreamReader(io.BytesIO(small_vhd()[0]))
    read_disk(reader)
    with pytest.raises(AssertionError, match="once"):
        next(reader.blocks())


@given(st.data())
def test_a_stream_cut_anywhere_is_refused(draw: st.DataObject) -> None:
    data, _ = small_vhd()
    length = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(VhdTruncated) as caught:
        read_all(data[:length])
    assert caught.value.offset_bytes == length


@pytest.mark.slow(reason="flips each of 2,560 bytes, one after the other")
def test_a_flipped_byte_of_footer_header_or_table_is_refused_or_harmless() -> None:
    data, disk = small_vhd()
    refused = 0
    for position in [*range(2048), *range(len(data) - 512, len(data))]:
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        try:
            found = read_all(bytes(damaged))
        except VhdError:
            refused += 1
        else:
            assert found == disk
    # Both footers, the header, and the table's four entries; the table's padding means nothing.
    assert refused == 512 + 1024 + 4 * 4 + 512


@given(st.integers(0, 2047), st.binary(min_size=1, max_size=24))
def test_a_forged_head_with_right_checksums_brings_a_disk_or_a_typed_error(position: int, forged: bytes) -> None:
    data = bytearray(small_vhd()[0])
    data[position : position + len(forged)] = forged
    for start, end, field in ((0, 512, 64), (512, 1536, 512 + 36)):
        data[field : field + 4] = bytes(4)
        data[field : field + 4] = (~sum(data[start:end]) & 0xFFFF_FFFF).to_bytes(4, "big")
    data[-512:] = data[:512]
    with contextlib.suppress(VhdError):
        head = read_vhd_head(io.BytesIO(data))
        if head.size_bytes <= MIB:
            assert len(read_all(bytes(data))) == head.size_bytes
    with contextlib.suppress(VhdError):
        assert len(VhdFile(io.BytesIO(data)).read(0, 512)) == 512


@pytest.mark.parametrize(
    ("spec", "error", "match"),
    [
        (VhdSpec(size_bytes=0), VhdDamaged, "disk of 0 bytes"),
        (VhdSpec(size_bytes=1000), VhdDamaged, "disk of 1000 bytes"),
        (VhdSpec(entries=3), VhdDamaged, "too small"),
        (VhdSpec(entries=0xFFFF_FFFF), VhdDamaged, "larger than any disk"),
        (VhdSpec(block_bytes=KIB64 + 512), VhdUnsupported, "blocks are of 66048 bytes"),
        (VhdSpec(block_bytes=8 * MIB), VhdUnsupported, "blocks are of 8388608 bytes"),
        (VhdSpec(disk_type=2), VhdUnsupported, "type 2"),
        (VhdSpec(disk_type=99), VhdUnsupported, "type 99"),
        (VhdSpec(version=0x0002_0000), VhdUnsupported, "version is 0x20000"),
        (VhdSpec(header_version=0x0002_0000), VhdUnsupported, "version is 0x20000"),
        (VhdSpec(tail=bytes(512)), VhdTruncated, "footer"),
        (VhdSpec(tail_identity=PARENT), VhdDamaged, "different disks"),
        (VhdSpec(places={1: 3}), VhdDamaged, "block table"),
        (VhdSpec(places={1: 0}), VhdDamaged, "block table"),
        (VhdSpec(places={1: 100, 2: 228}), VhdDamaged, "blocks 1 and 2 share"),
        (VhdSpec(places={1: 100, 3: 100}), VhdDamaged, "blocks 1 and 3 share"),
        (VhdSpec(entries=5, places={4: 100}), VhdDamaged, "behind the end of the disk"),
        (VhdSpec(places={1: 0xFFFF_FFFE}), VhdDamaged, "unused bytes"),
    ],
)
def test_a_lie_is_refused(spec: VhdSpec, error: type[VhdError], match: str) -> None:
    with pytest.raises(error, match=match):
        read_all(spec.pack())


@pytest.mark.parametrize("offset", [0, 511, 1 << 40, 0xFFFF_FFFF_FFFF_FFFF])
@pytest.mark.parametrize("is_header", [True, False], ids=["header", "table"])
def test_a_structure_at_an_absurd_place_is_refused(offset: int, *, is_header: bool) -> None:
    lying = VhdSpec(header_offset=offset) if is_header else VhdSpec(table_offset=offset)
    data = lying.footer() + lying.header() + VhdSpec().pack()[1536:]
    with pytest.raises(VhdDamaged):
        read_all(data)


def test_a_claimed_size_costs_no_memory_before_it_is_checked() -> None:
    spec = VhdSpec(size_bytes=limits.VHD_DISK_BYTES_MAX * 1024, entries=0xFFFF_FFFF)
    data = spec.footer() + spec.header()
    tracemalloc.start()
    try:
        with pytest.raises(VhdDamaged):
            read_vhd_head(io.BytesIO(data))
        assert tracemalloc.get_traced_memory()[1] < 1 * MIB
    finally:
        tracemalloc.stop()


def test_a_stream_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VHD_GAP_BYTES_MAX", 8192)
    data, _ = small_vhd()
    stream = Endless(data[:-512])
    with pytest.raises(VhdDamaged, match="no footer"):
        read_disk(VhdStreamReader(stream))
    assert stream.given_bytes < len(data) + 2 * 8192


def test_an_error_page_instead_of_a_disk_comes_out_as_the_pools_message() -> None:
    with pytest.raises(VhdInterrupted) as caught:
        read_all(ERROR_PAGE)
    assert caught.value.status == "500 Internal Error"
    assert caught.value.message == 'Failure("the SR went away")'
    assert caught.value.offset_bytes == 0


def interrupted_places() -> list[int]:
    """Return where a pool may give up: in the head, the table, a block, between blocks, before the footer, after it."""
    length = len(small_vhd()[0])
    block_end = 2048 + 512 + KIB64
    return [1, 512, 700, 1600, 2048, 2100, 9000, block_end - 10, block_end, length - 600, length - 512, length]


@pytest.mark.parametrize("length", interrupted_places())
def test_an_error_page_anywhere_in_the_stream_is_told_from_data(length: int) -> None:
    data, _ = small_vhd()
    with pytest.raises(VhdInterrupted, match="the SR went away") as caught:
        read_all(data[:length] + ERROR_PAGE)
    assert caught.value.offset_bytes == length


@pytest.mark.parametrize("extra", range(400, 4000, 371))
def test_a_long_error_page_that_runs_over_the_footers_place_is_told_too(extra: int) -> None:
    page = ERROR_PAGE.replace(b"went away", b"went away " + b"again " * (extra // 6))
    data, _ = small_vhd()
    with pytest.raises(VhdInterrupted):
        read_all(data[: len(data) - 512 - 100] + page)


def test_a_guests_own_web_page_in_a_cut_stream_is_not_mistaken() -> None:
    content = (ERROR_PAGE + b"\0\0\0").ljust(KIB64, b"\x07")
    data = VhdSpec(blocks=[BlockSpec(index=0, data=content)]).pack()
    with pytest.raises(VhdTruncated):
        read_all(data[: 2048 + 512 + len(ERROR_PAGE) + 2])


def test_an_error_tells_what_where_and_what_to_do() -> None:
    with pytest.raises(VhdTruncated) as caught:
        read_all(small_vhd()[0][:3000])
    error = caught.value
    assert json.dumps(error.facts()) == '{"offset_bytes": 3000, "expected": "block 0"}'
    assert "byte 3000" in str(error)
    assert "again" in error.next_step()
