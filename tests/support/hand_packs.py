"""Packs made by hand, with frames of several blocks and patches wherever a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from backports import zstd
from blake3 import blake3

from holdfast.core import SeededEntropy
from holdfast.repository import layout
from holdfast.repository.layout import Encoding, FrameKind, PackId, pack_key
from holdfast.repository.packs.frame import FrameCipher
from holdfast.repository.packs.trailer import TrailerNotes, write_trailer
from holdfast.repository.sealing import KeyRing
from holdfast.storage import ObjectStore


@dataclass(frozen=True, kw_only=True)
class HandFrame:
    """A frame of one or more blocks. ``is_packed``: what is in ``plain`` is encoded already."""

    ids: Sequence[bytes]
    plain: bytes
    kind: FrameKind = FrameKind.DATA
    encoding: Encoding = Encoding.RAW
    is_packed: bool = False


def block_id(keys: KeyRing, block: bytes) -> bytes:
    return blake3(block, key=keys.block_id_key).digest()


def data(keys: KeyRing, *blocks: bytes) -> HandFrame:
    return HandFrame(ids=[block_id(keys, block) for block in blocks], plain=b"".join(blocks))


def put_pack(
    store: ObjectStore, keys: KeyRing, frames: Sequence[HandFrame], *, padding: int = 0, seed: int = 5
) -> PackId:
    """Store a pack; return its id."""
    pack = PackId(SeededEntropy(seed).token_bytes(16))
    cipher = FrameCipher(keys, pack)
    raw_cipher = keys.pack_cipher(pack)
    rows, sealed, slot = [], [], 0
    for frame in frames:
        count = len(frame.ids)
        aad = cipher.header + layout.AAD_TAIL.pack(slot, frame.kind, frame.encoding, 0, count)
        is_packed = frame.is_packed or frame.encoding == Encoding.RAW
        body = frame.plain if is_packed else zstd.compress(frame.plain)
        sealed.append(raw_cipher.encrypt(slot.to_bytes(4, "little") + bytes(8), body, aad))
        for index, id in enumerate(frame.ids):
            length = len(sealed[-1]) if index == 0 else 0
            rows.append((id, length, int(frame.kind), int(frame.encoding), index, count))
        slot += count
    table = np.array(rows, dtype=layout.TRAILER_ROW)
    trailer = cipher.seal_trailer(write_trailer(table.tobytes(), TrailerNotes(run="r-by-hand")))
    tail = layout.PACK_TAIL.pack(layout.PACK_TAIL_MAGIC, len(trailer))
    store.put(pack_key(pack), [cipher.header, *sealed, bytes(padding), trailer, tail])
    return pack
