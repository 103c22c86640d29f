"""Packs: what is read is what was sealed there, in every form that the format allows."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES
from holdfast.repository import PackDamaged, PackMissing, layout
from holdfast.repository.layout import FrameKind, PackId, pack_key, parse_pack_key
from holdfast.repository.packs.pack import PackShelf
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.packs.trailer import TrailerNotes, parse_trailer, write_trailer
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.reading.gather import gather_places
from holdfast.repository.records.moved import Moves
from holdfast.repository.vault import Vault
from tests.support.hand_packs import HandFrame, block_id, data, put_pack
from tests.support.repositories import World, block_of, key_ring

PACK = PackId(bytes(16))


def a_vault() -> Vault:
    world = World()
    return Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)


def blocks_in(vault: Vault, pack: PackId, slots: list[int]) -> list[bytes]:
    out = bytearray(len(slots) * BLOCK_BYTES)
    wanted = gather_places([NodeAddress(pack, slot) for slot in slots], range(0, len(out), BLOCK_BYTES))
    BlockReader(vault, moves=Moves({})).read_into(memoryview(out), wanted)
    return [bytes(out[at : at + BLOCK_BYTES]) for at in range(0, len(out), BLOCK_BYTES)]


def test_frames_of_up_to_four_neighbours_are_read() -> None:
    vault = a_vault()
    blocks = [block_of(number) for number in range(1, 9)]
    frames = [
        data(vault.keys, *blocks[:4]),
        data(vault.keys, blocks[4]),
        data(vault.keys, *blocks[5:7]),
        data(vault.keys, blocks[7]),
    ]
    pack = put_pack(vault.store, vault.keys, frames)
    assert blocks_in(vault, pack, list(range(8))) == blocks
    assert blocks_in(vault, pack, [6, 2, 7, 0]) == [blocks[6], blocks[2], blocks[7], blocks[0]]


def test_padding_between_frames_and_trailer_is_left_alone() -> None:
    vault = a_vault()
    pack = put_pack(vault.store, vault.keys, [data(vault.keys, block_of(1))], padding=4096)
    assert blocks_in(vault, pack, [0]) == [block_of(1)]


def patch_frame(vault: Vault, base: PackId, pages: dict[int, bytes], *, block: bytes, base_slot: int = 0) -> HandFrame:
    bitmap = sum(1 << page for page in pages).to_bytes(16, "little")
    plain = base + base_slot.to_bytes(4, "little") + bitmap + b"".join(pages[each] for each in sorted(pages))
    return HandFrame(ids=[block_id(vault.keys, block)], plain=plain, kind=FrameKind.PATCH)


def test_a_patch_is_its_base_with_pages_replaced() -> None:
    vault = a_vault()
    base = put_pack(vault.store, vault.keys, [data(vault.keys, block_of(2))])
    pages = {0: b"a" * 512, 7: b"b" * 512, 63: b"c" * 512, 64: b"d" * 512, 127: b"e" * 512}
    block = bytearray(block_of(2))
    for page, content in pages.items():
        block[page * 512 : (page + 1) * 512] = content
    patch = patch_frame(vault, base, pages, block=bytes(block))
    pack = put_pack(vault.store, vault.keys, [patch], seed=6)
    assert blocks_in(vault, pack, [0]) == [bytes(block)]


def test_a_patch_that_makes_another_block_than_it_says_is_refused() -> None:
    vault = a_vault()
    base = put_pack(vault.store, vault.keys, [data(vault.keys, block_of(2))])
    patch = patch_frame(vault, base, {3: b"a" * 512}, block=block_of(1))
    pack = put_pack(vault.store, vault.keys, [patch], seed=6)
    with pytest.raises(PackDamaged, match="not the block that its trailer names"):
        blocks_in(vault, pack, [0])


def test_a_patch_on_a_patch_is_refused() -> None:
    vault = a_vault()
    base = put_pack(vault.store, vault.keys, [data(vault.keys, block_of(2))])
    first = put_pack(
        vault.store, vault.keys, [patch_frame(vault, base, {0: b"a" * 512}, block=b"a" * BLOCK_BYTES)], seed=6
    )
    second = put_pack(
        vault.store, vault.keys, [patch_frame(vault, first, {0: b"b" * 512}, block=b"b" * BLOCK_BYTES)], seed=7
    )
    with pytest.raises(PackDamaged, match="not DATA"):
        blocks_in(vault, second, [0])


@pytest.mark.parametrize("plain", [b"", bytes(36), layout.PATCH_HEADER.pack(bytes(16), 0, 3, 0) + bytes(512)])
def test_a_patch_that_does_not_fit_itself_is_refused(plain: bytes) -> None:
    vault = a_vault()
    frame = HandFrame(ids=[bytes(32)], plain=plain or b"x", kind=FrameKind.PATCH)
    pack = put_pack(vault.store, vault.keys, [frame])
    with pytest.raises(PackDamaged, match="bitmap"):
        blocks_in(vault, pack, [0])


def test_a_map_node_is_not_a_block() -> None:
    vault = a_vault()
    pack = put_pack(vault.store, vault.keys, [HandFrame(ids=[bytes(32)], plain=b"node", kind=FrameKind.MAP)])
    with pytest.raises(PackDamaged, match="holds no block"):
        blocks_in(vault, pack, [0])


def test_a_block_of_the_wrong_length_is_refused() -> None:
    vault = a_vault()
    pack = put_pack(vault.store, vault.keys, [HandFrame(ids=[bytes(32)], plain=b"short")])
    with pytest.raises(PackDamaged, match="decompresses to 5 bytes"):
        blocks_in(vault, pack, [0])


def test_a_slot_that_does_not_exist_is_refused() -> None:
    vault = a_vault()
    pack = put_pack(vault.store, vault.keys, [data(vault.keys, block_of(1))])
    with pytest.raises(PackDamaged, match="no such slot"):
        blocks_in(vault, pack, [1])


def test_a_missing_pack_is_told_from_a_damaged_one() -> None:
    with pytest.raises(PackMissing, match=pack_key(PACK)):
        blocks_in(a_vault(), PACK, [0])


@pytest.mark.parametrize("content", [b"", b"x", bytes(47), bytes(200), b"\0" * 300 + b"HFPT\xff\xff\xff\xff"])
def test_an_object_that_is_no_pack_is_refused(content: bytes) -> None:
    vault = a_vault()
    vault.store.put(pack_key(PACK), content)
    with pytest.raises(PackDamaged):
        vault.shelf.open(PACK)


def rows_of(*rows: tuple[int, int, int, int, int]) -> bytes:
    return np.array([(bytes(32), *row) for row in rows], dtype=layout.TRAILER_ROW).tobytes()


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(100, 1, 0, 1, 1)], id="place beyond the frame"),
        pytest.param([(100, 1, 0, 0, 2)], id="a group without its second block"),
        pytest.param([(100, 1, 0, 0, 2), (100, 1, 0, 1, 2)], id="a follower with a length"),
        pytest.param([(100, 1, 0, 0, 2), (0, 1, 0, 1, 3)], id="blocks that disagree"),
        pytest.param([(0, 1, 0, 0, 1)], id="an empty frame"),
        pytest.param([(16, 1, 0, 0, 1)], id="nothing but a tag"),
        pytest.param([(100, 9, 0, 0, 1)], id="an unknown kind"),
        pytest.param([(100, 1, 7, 0, 1)], id="an unknown encoding"),
        pytest.param([(100, 3, 0, 0, 2), (0, 3, 0, 1, 2)], id="a map of two blocks"),
        pytest.param([(100, 1, 0, 0, 5)], id="too many blocks"),
        pytest.param([(100, 1, 0, 0, 0)], id="no block"),
        pytest.param([(600, 1, 0, 0, 1), (600, 1, 0, 0, 1)], id="longer than the pack"),
        pytest.param([(3 << 20, 1, 0, 0, 1)], id="longer than a frame can be"),
        pytest.param([], id="no slot"),
    ],
)
def test_a_trailer_that_contradicts_itself_is_refused(rows: list[tuple[int, int, int, int, int]]) -> None:
    plain = write_trailer(rows_of(*rows), TrailerNotes(run="r"))
    with pytest.raises(PackDamaged):
        parse_trailer(plain, pack=PACK, frames_bytes=1000)


@given(plain=st.binary(max_size=200))
def test_garbage_is_never_a_trailer_that_lies_outside_the_pack(plain: bytes) -> None:
    try:
        trailer = parse_trailer(plain, pack=PACK, frames_bytes=500)
    except PackDamaged:
        return
    assert int(trailer.offsets[-1]) <= layout.PACK_HEADER.size + 500


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=20))
def test_offsets_follow_from_lengths(counts: list[int]) -> None:
    rows, frames_bytes = [], 0
    for number, count in enumerate(counts):
        rows += [((20 + number) if index == 0 else 0, 1, 0, index, count) for index in range(count)]
        frames_bytes += 20 + number
    plain = write_trailer(rows_of(*rows), TrailerNotes(run="r"))
    trailer = parse_trailer(plain, pack=PACK, frames_bytes=frames_bytes)
    expected, at = [], layout.PACK_HEADER.size
    for number, count in enumerate(counts):
        expected += [at] * count
        at += 20 + number
    assert trailer.offsets.tolist() == expected


def test_notes_with_fields_of_a_later_version_are_read() -> None:
    notes = msgspec.msgpack.encode({"run": "r", "later": [1, 2]})
    rows = rows_of((100, 1, 0, 0, 1))
    plain = layout.TRAILER_HEADER.pack(1, len(notes)) + rows + notes
    assert parse_trailer(plain, pack=PACK, frames_bytes=100).notes.run == "r"


def test_the_shelf_keeps_a_bounded_number_of_rows() -> None:
    vault = a_vault()
    packs = [put_pack(vault.store, vault.keys, [data(vault.keys, block_of(1))], seed=seed) for seed in range(10, 16)]
    shelf = PackShelf(vault.store, vault.keys, rows_max=3)
    first = shelf.open(packs[0])
    assert shelf.open(packs[0]) is first
    for pack in packs[1:]:
        shelf.open(pack)
    assert shelf.open(packs[0]) is not first


def test_a_forgotten_pack_is_read_from_the_store_again() -> None:
    vault = a_vault()
    pack = put_pack(vault.store, vault.keys, [data(vault.keys, block_of(1))])
    vault.shelf.open(pack)
    vault.store.delete(pack_key(pack))
    vault.shelf.forget(pack)
    with pytest.raises(PackMissing):
        vault.shelf.open(pack)


@given(pack=st.binary(min_size=16, max_size=16))
def test_a_pack_is_found_by_its_name(pack: bytes) -> None:
    key = pack_key(PackId(pack))
    assert parse_pack_key(key) == pack
    assert parse_pack_key(key + "0") is None
    assert parse_pack_key("packs/zz/" + pack.hex()) is None
    assert parse_pack_key("packs/" + pack.hex()) is None
