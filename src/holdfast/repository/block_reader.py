"""Reading blocks: gathers many blocks of a disk with few requests, and proves each before it is used.

Invariant: every block is authenticated, decoded to its full length, and compared with the id that its pack's trailer
names. A patch is applied to its base before that comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from holdfast.core import BLOCK_BYTES, KIB, MIB
from holdfast.repository.damage import PackDamaged
from holdfast.repository.layout import FrameKind
from holdfast.repository.moved import Moves
from holdfast.repository.pack import OpenPack, parse_patch, patch_block
from holdfast.repository.stored_disk import NodeAddress
from holdfast.repository.vault import Vault

__all__ = ["BlockReader", "Wanted"]

_GAP_BYTES_MAX = 128 * KIB
"""Reading over a gap of this size costs less than another request, even on a local disk."""

_REQUEST_BYTES_MAX = 4 * MIB


@dataclass(frozen=True, slots=True)
class Wanted:
    """A block to read, and where in the output it goes."""

    place: NodeAddress
    at: int


@dataclass(frozen=True, slots=True)
class _Frame:
    offset_bytes: int
    length_bytes: int
    slot: int
    at: int


class BlockReader:
    """Reads blocks by their places. Thread-safe."""

    def __init__(self, vault: Vault, *, moves: Moves) -> None:
        self._vault = vault
        self._moves = moves
        self._block_key = vault.keys.block_id_key

    def read_into(self, out: memoryview, wanted: Sequence[Wanted]) -> None:
        """Fill ``out`` at the wanted offsets. ``PackMissing``, ``PackDamaged``."""
        by_pack: dict[bytes, list[Wanted]] = {}
        for each in wanted:
            place = self._moves.resolve(each.place) if len(self._moves) else each.place
            by_pack.setdefault(place.pack, []).append(Wanted(place, each.at))
        for group in by_pack.values():
            opened = self._vault.shelf.open(group[0].place.pack)
            self._read_pack(opened, group, out)

    def read(self, place: NodeAddress) -> bytes:
        """Return one block."""
        block = bytearray(BLOCK_BYTES)
        self.read_into(memoryview(block), [Wanted(place, 0)])
        return bytes(block)

    def _read_pack(self, opened: OpenPack, group: Sequence[Wanted], out: memoryview) -> None:
        frames = sorted(
            (_Frame(*opened.frame_extent(each.place.slot), each.place.slot, each.at) for each in group),
            key=lambda frame: frame.offset_bytes,
        )
        first = 0
        while first < len(frames):
            last = _end_of_request(frames, first)
            start = frames[first].offset_bytes
            length_bytes = frames[last - 1].offset_bytes + frames[last - 1].length_bytes - start
            sealed = opened.read_range(start, length_bytes)
            for frame in frames[first:last]:
                at = frame.offset_bytes - start
                block = self.block(opened, frame.slot, sealed[at : at + frame.length_bytes])
                out[frame.at : frame.at + BLOCK_BYTES] = block
            first = last

    def block(self, opened: OpenPack, slot: int, sealed: memoryview) -> bytes:
        """Return the proven block of a slot, from its sealed frame."""
        plain = opened.plain(slot, sealed)
        kind = int(opened.trailer.rows["kind"][slot])
        if kind == FrameKind.PATCH:
            plain = self._patched(opened, slot, plain)
        elif kind != FrameKind.DATA:
            raise PackDamaged(pack=opened.pack, slot=slot, reason="it holds no block")
        if blake3(plain, key=self._block_key).digest() != opened.trailer.id_of(slot):
            raise PackDamaged(pack=opened.pack, slot=slot, reason="it is not the block that its trailer names")
        return plain

    def _patched(self, opened: OpenPack, slot: int, plain: bytes) -> bytes:
        patch = parse_patch(plain, pack=opened.pack, slot=slot)
        place = self._moves.resolve(NodeAddress(patch.base_pack, patch.base_slot))
        base = self._vault.shelf.open(place.pack)
        # Depth is one: a base is a whole block, never another patch.
        return patch_block(base.fetch(place.slot, kind=FrameKind.DATA), patch)


def _end_of_request(frames: Sequence[_Frame], first: int) -> int:
    """Return the end of the frames, from ``first`` on, that one request reads."""
    start = frames[first].offset_bytes
    last = first + 1
    while last < len(frames):
        end = frames[last - 1].offset_bytes + frames[last - 1].length_bytes
        following = frames[last]
        reach = following.offset_bytes + following.length_bytes - start
        if following.offset_bytes - end > _GAP_BYTES_MAX or reach > _REQUEST_BYTES_MAX:
            break
        last += 1
    return last
