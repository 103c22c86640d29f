"""Map nodes: written, read, equal; anything else is refused."""

from __future__ import annotations

import numpy as np
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, GIB
from holdfast.repository import MapDamaged, NodeAddress
from holdfast.repository.layout import LEAF_BYTES, PackId
from holdfast.repository.packs.disk_map import (
    Leaf,
    Root,
    blocks_of_leaf,
    leaf_count,
    read_leaf,
    read_root,
    write_leaf,
    write_root,
)

HERE = NodeAddress(PackId(b"p" * 16), 3)


def pack(number: int) -> PackId:
    return PackId(number.to_bytes(16, "big"))


entries = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 65_535)), min_size=1, max_size=40)


@given(entries=entries)
def test_a_leaf_is_read_as_it_was_written(entries: list[tuple[int, int]]) -> None:
    places = np.array([place for place, _ in entries], dtype=np.uint16)
    slots = np.array([slot for _, slot in entries], dtype=np.uint16)
    packs = tuple(pack(number) for number in range(min(3, len(entries))))
    places = np.minimum(places, len(packs)).astype(np.uint16)
    found = read_leaf(write_leaf(Leaf(packs, places, slots)), address=HERE, blocks=len(entries))
    assert found.packs == packs
    assert found.places.tolist() == places.tolist()
    assert found.slots.tolist() == slots.tolist()


@given(
    leaves=st.lists(st.none() | st.tuples(st.integers(0, 5), st.integers(0, 16_383)), min_size=1, max_size=30),
    short=st.integers(0, LEAF_BYTES // 512 - 1),
)
def test_a_root_is_read_as_it_was_written(leaves: list[tuple[int, int] | None], short: int) -> None:
    size_bytes = len(leaves) * LEAF_BYTES - short * 512
    addresses = tuple(None if leaf is None else NodeAddress(pack(leaf[0]), leaf[1]) for leaf in leaves)
    root = Root(size_bytes, addresses)
    assert read_root(write_root(root), address=HERE) == root


@given(garbage=st.binary(max_size=120))
def test_garbage_is_refused_or_at_least_consistent(garbage: bytes) -> None:
    for blocks in (1, 7):
        try:
            leaf = read_leaf(garbage, address=HERE, blocks=blocks)
        except MapDamaged:
            continue
        assert len(leaf.places) == len(leaf.slots) == blocks
        assert int(leaf.places.max()) <= len(leaf.packs)
    try:
        root = read_root(garbage, address=HERE)
    except MapDamaged:
        return
    assert len(root.leaves) == leaf_count(root.size_bytes)


def spoiled(plain: bytes, offset: int, value: int) -> bytes:
    changed = bytearray(plain)
    changed[offset] = value
    return bytes(changed)


def test_nodes_of_another_version_level_or_shape_are_refused() -> None:
    leaf = write_leaf(Leaf((pack(1),), np.array([1, 0], dtype=np.uint16), np.array([5, 0], dtype=np.uint16)))
    for offset, value in [(0, 1), (1, 2), (2, 3), (4, 2), (24, 2)]:
        with pytest.raises(MapDamaged, match=HERE.pack.hex()):
            read_leaf(spoiled(leaf, offset, value), address=HERE, blocks=2)
    root = write_root(Root(LEAF_BYTES, (NodeAddress(pack(1), 2),)))
    for offset, value in [(0, 0), (1, 2), (4, 2), (16, 2), (20, 1), (40, 2)]:
        with pytest.raises(MapDamaged):
            read_root(spoiled(root, offset, value), address=HERE)


def test_a_leaf_has_as_many_blocks_as_the_disk_has_there() -> None:
    size_bytes = LEAF_BYTES + 3 * BLOCK_BYTES + 512
    assert leaf_count(size_bytes) == 2
    assert [blocks_of_leaf(size_bytes, number) for number in range(2)] == [4096, 4]
    assert leaf_count(2040 * GIB) == 8160


def test_a_map_in_order_costs_next_to_nothing() -> None:
    places, slots = np.ones(4096, dtype=np.uint16), np.arange(4096, dtype=np.uint16)
    assert len(zstd.compress(write_leaf(Leaf((pack(1),), places, slots)), 3)) < 100
