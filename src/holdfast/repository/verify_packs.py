"""Checking one pack: every frame in it is read, authenticated, decoded and compared with its id."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.core import BLOCK_BYTES, MIB, Cancellation
from holdfast.repository import layout
from holdfast.repository.block_reader import BlockReader
from holdfast.repository.damage import Damage, PackDamaged, PackMissing
from holdfast.repository.disk_map import node_id
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.pack import OpenPack
from holdfast.repository.vault import Vault

__all__ = ["PackCheck", "check_pack"]

_REQUEST_BYTES = 4 * MIB


@dataclass(slots=True)
class PackCheck:
    """What the check of one pack found."""

    pack: PackId
    frames: int = 0
    read_bytes: int = 0
    block_bytes: int = 0
    is_missing: bool = False
    whole: str = ""
    """Why nothing in the pack can be used; empty when the pack itself is fine."""
    slots: dict[int, str] = field(default_factory=dict)
    """Damaged slots and why."""


def check_pack(vault: Vault, blocks: BlockReader, pack: PackId, *, cancel: Cancellation) -> PackCheck:
    """Return what is wrong with a pack, read from the store anew. Raises only what the store itself raises."""
    check = PackCheck(pack)
    vault.shelf.forget(pack)
    try:
        opened = vault.shelf.open(pack)
        check.read_bytes += layout.PACK_HEADER.size
        if bytes(opened.read_range(0, layout.PACK_HEADER.size)) != opened.header:
            check.whole = "its header is not the one that was written"
        _check_frames(vault, blocks, opened, check, cancel)
    except PackMissing:
        check.is_missing = True
        check.whole = "it is missing"
    except PackDamaged as damage:
        check.whole = damage.reason
    return check


def _check_frames(vault: Vault, blocks: BlockReader, opened: OpenPack, check: PackCheck, cancel: Cancellation) -> None:
    slot = 0
    while slot < len(opened.trailer):
        cancel.check()
        start, last = opened.frame_extent(slot)[0], slot
        end = start
        while last < len(opened.trailer):
            offset_bytes, length_bytes = opened.frame_extent(last)
            if offset_bytes + length_bytes - start > _REQUEST_BYTES and last > slot:
                break
            end = offset_bytes + length_bytes
            last += 1
        sealed = opened.read_range(start, end - start)
        check.read_bytes += end - start
        for each in range(slot, last):
            offset_bytes, length_bytes = opened.frame_extent(each)
            at = offset_bytes - start
            _check_slot(vault, blocks, opened, each, sealed[at : at + length_bytes], check)
        slot = last


def _check_slot(
    vault: Vault, blocks: BlockReader, opened: OpenPack, slot: int, sealed: memoryview, check: PackCheck
) -> None:
    check.frames += 1
    try:
        if int(opened.trailer.rows["kind"][slot]) == FrameKind.MAP:
            if node_id(vault.keys, opened.plain(slot, sealed)) != opened.trailer.id_of(slot):
                check.slots[slot] = "it is not the map node that its trailer names"
        else:
            blocks.block(opened, slot, sealed)
            check.block_bytes += BLOCK_BYTES
    except PackDamaged as damage:
        check.slots[slot] = damage.reason
    except Damage as damage:
        check.slots[slot] = str(damage)
