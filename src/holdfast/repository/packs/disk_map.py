"""Disk maps: for every block of a disk the pack and slot that hold it, or zero.

A map is a root and its leaves of 4,096 blocks. Nodes are stored as map frames, never change, and are shared by all
points whose disk is the same there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from holdfast.repository import layout
from holdfast.repository.damage import MapDamaged
from holdfast.repository.layout import PackId
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.sealing import KeyRing

__all__ = [
    "Leaf",
    "Root",
    "blocks_of_leaf",
    "leaf_count",
    "node_id",
    "read_leaf",
    "read_root",
    "write_leaf",
    "write_root",
]

_LEAF_HEADER = struct.Struct("<BBHHH")
"""level 0, version 1, blocks, packs, reserved 0."""
_ROOT_HEADER = struct.Struct("<BBHIQII")
"""level 1, version 1, reserved 0, leaves, size in bytes, packs, blocks per leaf."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Leaf:
    """The entries of one leaf. ``places[i]`` is 0 for a zero block, otherwise 1 + its index in ``packs``."""

    packs: tuple[PackId, ...]
    places: npt.NDArray[np.uint16]
    slots: npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Root:
    """The leaves of a disk, in order; None where a whole leaf is zero."""

    size_bytes: int
    leaves: tuple[NodeAddress | None, ...]


def leaf_count(size_bytes: int) -> int:
    """Return how many leaves the map of a disk has."""
    return -(-size_bytes // layout.LEAF_BYTES)


def blocks_of_leaf(size_bytes: int, number: int) -> int:
    """Return how many blocks leaf ``number`` of a disk has: 4,096, fewer in the last."""
    blocks = -(-size_bytes // (layout.LEAF_BYTES // layout.LEAF_BLOCKS))
    return min(layout.LEAF_BLOCKS, blocks - number * layout.LEAF_BLOCKS)


def node_id(keys: KeyRing, plain: bytes) -> bytes:
    """Return the id of a node, from its plain bytes."""
    return blake3(plain, key=keys.node_id_key).digest()


def write_leaf(leaf: Leaf) -> bytes:
    """Return the plain bytes of a leaf."""
    header = _LEAF_HEADER.pack(0, _VERSION, len(leaf.places), len(leaf.packs), 0)
    return header + b"".join(leaf.packs) + leaf.places.astype("<u2").tobytes() + _delta(leaf.slots)


def read_leaf(plain: bytes, *, address: NodeAddress, blocks: int) -> Leaf:
    """Return the leaf of ``blocks`` entries; ``MapDamaged`` when the bytes are not one."""
    level, version, found, packs, _ = _LEAF_HEADER.unpack_from(plain) if len(plain) >= 8 else (9, 0, 0, 0, 0)
    _check_node(level == 0 and version == _VERSION, address, "it is not a leaf that this version can read")
    start = _LEAF_HEADER.size + packs * 16
    is_whole = found == blocks and packs <= blocks and len(plain) == start + 4 * blocks
    _check_node(is_whole, address, f"a leaf of {found} blocks and {packs} packs stands where {blocks} blocks belong")
    places = np.frombuffer(plain, dtype="<u2", count=blocks, offset=start)
    slots = _undelta(plain, start + 2 * blocks, blocks)
    _check_node(int(places.max(initial=0)) <= packs, address, "an entry names a pack that the leaf does not list")
    return Leaf(_pack_ids(plain, _LEAF_HEADER.size, packs), places, slots)


def write_root(root: Root) -> bytes:
    """Return the plain bytes of a root."""
    packs = sorted({leaf.pack for leaf in root.leaves if leaf is not None})
    place = {pack: number for number, pack in enumerate(packs, start=1)}
    places = np.array([0 if leaf is None else place[leaf.pack] for leaf in root.leaves], dtype="<u4")
    slots = np.array([0 if leaf is None else leaf.slot for leaf in root.leaves], dtype=np.uint16)
    header = _ROOT_HEADER.pack(1, _VERSION, 0, len(root.leaves), root.size_bytes, len(packs), layout.LEAF_BLOCKS)
    return header + b"".join(packs) + places.tobytes() + _delta(slots)


def read_root(plain: bytes, *, address: NodeAddress) -> Root:
    """Return the root; ``MapDamaged`` when the bytes are not one."""
    fields = _ROOT_HEADER.unpack_from(plain) if len(plain) >= _ROOT_HEADER.size else (9, 0, 0, 0, 0, 0, 0)
    level, version, _, count, size_bytes, packs, leaf_blocks = fields
    _check_node(level == 1 and version == _VERSION, address, "it is not a root that this version can read")
    _check_node(leaf_blocks == layout.LEAF_BLOCKS, address, f"its leaves have {leaf_blocks} blocks")
    start = _ROOT_HEADER.size + packs * 16
    is_whole = count == leaf_count(size_bytes) <= layout.ROOT_LEAVES_MAX and len(plain) == start + 6 * count
    _check_node(is_whole, address, f"{count} leaves do not make a disk of {size_bytes} bytes")
    ids = _pack_ids(plain, _ROOT_HEADER.size, packs)
    places = np.frombuffer(plain, dtype="<u4", count=count, offset=start).tolist()
    slots = _undelta(plain, start + 4 * count, count).tolist()
    _check_node(max(places, default=0) <= packs, address, "a leaf lies in a pack that the root does not list")
    leaves = (NodeAddress(ids[place - 1], slot) if place else None for place, slot in zip(places, slots, strict=True))
    return Root(size_bytes, tuple(leaves))


def _delta(slots: npt.NDArray[np.uint16]) -> bytes:
    """Return the slots as differences: what was written in order compresses to nearly nothing."""
    return np.diff(slots.astype("<u2"), prepend=np.uint16(0)).astype("<u2").tobytes()


def _undelta(plain: bytes, offset: int, count: int) -> npt.NDArray[np.uint16]:
    deltas = np.frombuffer(plain, dtype="<u2", count=count, offset=offset)
    return np.cumsum(deltas, dtype=np.uint16)


def _pack_ids(plain: bytes, offset: int, count: int) -> tuple[PackId, ...]:
    return tuple(PackId(plain[at : at + 16]) for at in range(offset, offset + 16 * count, 16))


def _check_node(is_sound: bool, address: NodeAddress, reason: str) -> None:
    if not is_sound:
        raise MapDamaged(pack=address.pack, slot=address.slot, reason=reason)
