"""Checking one pack: every frame in it is read, authenticated, decoded and compared with its id."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from holdfast.core import BLOCK_BYTES, MIB, Cancellation
from holdfast.repository import layout
from holdfast.repository.damage import MISSING, Damage, PackDamaged, PackMissing
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.packs.disk_map import node_id
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.packs.read_plan import FrameRead, plan_reads
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.reading.gather import Gatherer, PatchRead, Submit, not_the_block, read_patch
from holdfast.repository.vault import Vault

__all__ = ["PackCheck", "check_pack"]

_PATCHES_AT_ONCE_MAX = 4 * MIB // BLOCK_BYTES
"""Their bases are read together."""


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


def check_pack(
    vault: Vault,
    blocks: BlockReader,
    pack: PackId,
    *,
    cancel: Cancellation,
    decoding: AbstractContextManager[object] | None = None,
    submit: Submit | None = None,
) -> PackCheck:
    """Return what is wrong with a pack, read from the store anew. Raises only what the store itself raises.

    ``decoding`` is held while frames are decoded and not while the store is waited for; ``submit`` reads what patches
    build on elsewhere.
    """
    check = PackCheck(pack)
    vault.shelf.forget(pack)
    try:
        opened = vault.shelf.open(pack)
        check.read_bytes += layout.PACK_HEADER.size
        if bytes(opened.read_range(0, layout.PACK_HEADER.size)) != opened.header:
            check.whole = "its header is not the one that was written"
        bases = blocks.gatherer(submit=submit, decoding=decoding)
        _check_frames(vault, bases, opened, check, cancel)
    except PackMissing:
        check.is_missing = True
        check.whole = MISSING
    except PackDamaged as damage:
        check.whole = damage.reason
    return check


def _check_frames(vault: Vault, bases: Gatherer, opened: OpenPack, check: PackCheck, cancel: Cancellation) -> None:
    slots = np.arange(len(opened.trailer))
    patches: list[PatchRead] = []
    for request in plan_reads(opened.trailer, slots, slots):
        cancel.check()
        sealed = opened.read_range(request.offset_bytes, request.length_bytes)
        check.read_bytes += request.length_bytes
        with bases.decoding:
            for frame in request.frames:
                start = frame.offset_bytes - request.offset_bytes
                _check_frame(vault, opened, frame, sealed[start : start + frame.length_bytes], check, patches)
        if len(patches) >= _PATCHES_AT_ONCE_MAX:
            _check_patches(bases, patches, check)
            patches = []
    _check_patches(bases, patches, check)


def _check_frame(
    vault: Vault, opened: OpenPack, frame: FrameRead, sealed: memoryview, check: PackCheck, patches: list[PatchRead]
) -> None:
    """Check what a frame holds; a patch is put aside until its base is read."""
    check.frames += 1
    try:
        if frame.kind == FrameKind.PATCH:
            patches.append(read_patch(opened, frame, sealed))
        else:
            _check_content(vault, opened, frame, sealed, check)
    except PackDamaged as damage:
        check.slots.update({want.token: damage.reason for want in frame.wants})


def _check_content(vault: Vault, opened: OpenPack, frame: FrameRead, sealed: memoryview, check: PackCheck) -> None:
    """Compare what a frame holds with what the trailer says of each of its slots."""
    if frame.kind == FrameKind.MAP:
        (want,) = frame.wants
        if node_id(vault.keys, opened.open_frame(frame, sealed)) != want.id:
            check.slots[want.token] = "it is not the map node that its trailer names"
        return
    blocks = opened.open_blocks(frame, sealed)
    for want in frame.wants:
        if blake3(blocks[want.part], key=vault.keys.block_id_key).digest() == want.id:
            check.block_bytes += BLOCK_BYTES
        else:
            check.slots[want.token] = not_the_block(check.pack, want.token).reason


def _check_patches(bases: Gatherer, patches: Sequence[PatchRead], check: PackCheck) -> None:
    """Make the blocks of patches, and compare each with its id."""
    if not patches:
        return
    out = memoryview(bytearray(len(patches) * BLOCK_BYTES))
    placed = [
        PatchRead(each.place, each.patch, [each.wants[0]._replace(token=number * BLOCK_BYTES)])
        for number, each in enumerate(patches)
    ]

    def note(offset: int, damage: Damage) -> None:
        slot = patches[offset // BLOCK_BYTES].place.slot
        if isinstance(damage, PackDamaged) and (damage.pack, damage.slot) == (check.pack, slot):
            check.slots[slot] = damage.reason
        else:
            check.slots[slot] = f"the block that it patches: {damage}"

    before = len(check.slots)
    bases.gather_patched(out, placed, lose=note).result()
    check.block_bytes += (len(patches) - len(check.slots) + before) * BLOCK_BYTES
