"""Offsets, sizes, magic values and object names of the repository format, version 1, and nothing else.

``docs/formats/repository.md`` and the pages it names are the law for these bytes. Everything is little-endian.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NewType

import numpy as np

from holdfast.core import BLOCK_BYTES, MIB

__all__ = [
    "AAD_TAIL",
    "BLOCKS_PER_FRAME_MAX",
    "CANARY_PREFIX",
    "CATALOGUE_PREFIX",
    "CONDEMNED_PREFIX",
    "CONFIG_KEY",
    "EPOCHS_PREFIX",
    "EPOCH_MAX",
    "FEATURES_PREFIX",
    "FORMAT_NAME",
    "FORMAT_VERSION",
    "FRAME_BYTES_MAX",
    "HOLDERS_PREFIX",
    "HOLES_PREFIX",
    "ID_BYTES",
    "IMMUTABILITY_PREFIX",
    "INDEX_HEADER",
    "INDEX_MAGIC",
    "INDEX_PACK_ROW",
    "INDEX_PREFIX",
    "INDEX_SAMPLE_ROW",
    "INDEX_TAIL",
    "INDEX_TAIL_MAGIC",
    "KEYS_PREFIX",
    "LEAF_BLOCKS",
    "LEAF_BYTES",
    "LEASES_PREFIX",
    "MOVED_PREFIX",
    "MOVED_ROW",
    "NODE_BYTES_MAX",
    "OBJECT_BYTES_MAX",
    "OBJECT_HEADER",
    "OBJECT_MAGIC",
    "OBJECT_PLAIN_HEADER",
    "OBJECT_VERSION",
    "PACKS_PREFIX",
    "PACK_HEADER",
    "PACK_MAGIC",
    "PACK_TABLE_ROW",
    "PACK_TAIL",
    "PACK_TAIL_MAGIC",
    "PACK_VERSION",
    "PAGE_BYTES",
    "PATCH_HEADER",
    "POINTS_PREFIX",
    "PROOFS_PREFIX",
    "PROOF_ROW",
    "QUARANTINE_PREFIX",
    "QUARANTINE_ROW",
    "ROOT_LEAVES_MAX",
    "SAMPLE_MASK",
    "SLOTS_MAX",
    "TAG_BYTES",
    "TRAILER_BYTES_MAX",
    "TRAILER_HEADER",
    "TRAILER_ROW",
    "TRAILER_SLOT",
    "Encoding",
    "FrameKind",
    "ObjectKind",
    "PackId",
    "pack_key",
    "parse_pack_key",
    "parse_trailer_word",
    "trailer_word",
]

PackId = NewType("PackId", bytes)
"""16 random bytes; an id is never used twice, which is what makes the nonces of its frames unique."""

FORMAT_NAME: Final = "holdfast-repository"
FORMAT_VERSION: Final = 1

# Object names.
CONFIG_KEY: Final = "holdfast.json"
KEYS_PREFIX: Final = "keys/"
FEATURES_PREFIX: Final = "features/"
PACKS_PREFIX: Final = "packs/"
POINTS_PREFIX: Final = "points/"
INDEX_PREFIX: Final = "index/"
LEASES_PREFIX: Final = "leases/"
CONDEMNED_PREFIX: Final = "condemned/"
MOVED_PREFIX: Final = "moved/"
QUARANTINE_PREFIX: Final = "quarantine/"
CATALOGUE_PREFIX: Final = "catalogue/"
HOLES_PREFIX: Final = "holes/"
PROOFS_PREFIX: Final = "proofs/"
EPOCHS_PREFIX: Final = "epochs/"
IMMUTABILITY_PREFIX: Final = "immutability/"
CANARY_PREFIX: Final = "canary/"
HOLDERS_PREFIX: Final = "holders/"

ID_BYTES: Final = 32
TAG_BYTES: Final = 16


class FrameKind(enum.IntEnum):
    """What a frame holds."""

    DATA = 1
    PATCH = 2
    MAP = 3
    TRAILER = 255
    """Never in a trailer's rows; only in the associated data of the trailer itself."""


class Encoding(enum.IntEnum):
    """How the plain bytes of a frame or a sealed object were packed before sealing."""

    RAW = 0
    ZSTD = 1


# A pack: header, frames, sealed trailer, tail.
PACK_MAGIC: Final = b"HFPK"
PACK_VERSION: Final = 1
PACK_HEADER: Final = struct.Struct("<4sHH16s16s")
"""magic, version, epoch, repository id, pack id."""
AAD_TAIL: Final = struct.Struct("<IBBBB")
"""slot, kind, encoding, reserved 0, block count: follows the pack header in a frame's associated data."""
PACK_TAIL: Final = struct.Struct("<4sI")
"""magic, length of the sealed trailer and epoch (``trailer_word``): the last bytes of a pack."""
PACK_TAIL_MAGIC: Final = b"HFPT"
TRAILER_SLOT: Final = 0xFFFFFFFF
TRAILER_HEADER: Final = struct.Struct("<II")
"""number of rows, length of the MessagePack map that follows them."""
TRAILER_ROW: Final = np.dtype(
    [("id", "V32"), ("length", "<u4"), ("kind", "u1"), ("encoding", "u1"), ("index", "u1"), ("count", "u1")]
)
SLOTS_MAX: Final = 16_384
"""Keeps a trailer below 1 MiB whatever the blocks compress to."""
TRAILER_BYTES_MAX: Final = 1 * MIB
_TRAILER_LENGTH_BITS: Final = 21
EPOCH_MAX: Final = 2**11 - 1
"""What is left in the 32 bits that say how long a trailer is."""
BLOCKS_PER_FRAME_MAX: Final = 4
FRAME_BYTES_MAX: Final = 2 * MIB + TAG_BYTES
"""The root of the largest disk; a data frame is at most 4 blocks."""

# A patch frame's plain bytes: header, then one page, a sector of the disk, for each bit that is set.
PAGE_BYTES: Final = 512
PATCH_HEADER: Final = struct.Struct("<16sIQQ")
"""base pack, base slot, bitmap of pages 0 to 63, of pages 64 to 127."""

# A disk map.
LEAF_BLOCKS: Final = 4096
LEAF_BYTES: Final = LEAF_BLOCKS * BLOCK_BYTES
ROOT_LEAVES_MAX: Final = 65_536
"""16 TiB of disk."""
NODE_BYTES_MAX: Final = 2 * MIB

PACK_TABLE_ROW: Final = np.dtype([("pack", "V16"), ("length", "<u4"), ("references", "<u4"), ("live", "<u8")])

# A sealed object.
OBJECT_MAGIC: Final = b"HFSO"
OBJECT_VERSION: Final = 1
OBJECT_HEADER: Final = struct.Struct("<4sBBH16s")
"""magic, version, kind, epoch, nonce."""
OBJECT_PLAIN_HEADER: Final = struct.Struct("<B3xI")
"""encoding, three zero bytes, length of the decoded payload."""
OBJECT_BYTES_MAX: Final = 1024 * MIB


class ObjectKind(enum.IntEnum):
    """What a sealed object is."""

    POINT = 1
    INDEX = 2
    LEASE = 3
    CONDEMNED = 4
    MOVED = 5
    QUARANTINE = 6
    CATALOGUE = 7
    HOLES = 8
    PROOF = 9
    EPOCH = 10
    IMMUTABILITY = 11
    HOLDER = 12


# An index object: header, copies of sealed trailers, sealed head, tail.
INDEX_MAGIC: Final = b"HFIX"
INDEX_HEADER: Final = struct.Struct("<4sHH16s")
"""magic, version, reserved 0, repository id."""
INDEX_TAIL: Final = struct.Struct("<4sI")
INDEX_TAIL_MAGIC: Final = b"HFIT"
INDEX_PACK_ROW: Final = np.dtype(
    [("pack", "V16"), ("length", "<u4"), ("rows", "<u4"), ("trailer_offset", "<u8"), ("trailer_length", "<u4")]
)
INDEX_SAMPLE_ROW: Final = np.dtype([("prefix", "<u8"), ("pack", "<u4")])
SAMPLE_MASK: Final = 0x3F
"""A block is sampled when the low six bits of the first byte of its id are zero: 1 in 64."""

MOVED_ROW: Final = np.dtype([("old_pack", "V16"), ("old_slot", "<u4"), ("new_pack", "V16"), ("new_slot", "<u4")])

QUARANTINE_ROW: Final = np.dtype([("pack", "V16"), ("slot", "<u4")])

PROOF_ROW: Final = np.dtype([("pack", "V16"), ("length", "<u4"), ("checked_s", "<u8")])

assert PACK_HEADER.size == 40
assert TRAILER_ROW.itemsize == 40
assert PACK_TABLE_ROW.itemsize == 32
assert INDEX_PACK_ROW.itemsize == 36
assert INDEX_SAMPLE_ROW.itemsize == 12
assert MOVED_ROW.itemsize == 40
assert QUARANTINE_ROW.itemsize == 20
assert PROOF_ROW.itemsize == 28
assert SLOTS_MAX * TRAILER_ROW.itemsize < TRAILER_BYTES_MAX < 1 << _TRAILER_LENGTH_BITS


def pack_key(pack: PackId) -> str:
    """Return the name of the object that holds a pack."""
    text = pack.hex()
    return f"{PACKS_PREFIX}{text[:2]}/{text}"


def parse_pack_key(key: str) -> PackId | None:
    """Return the pack that an object's name says it holds; None when it is not the name of a pack."""
    name = key.rpartition("/")[2]
    try:
        pack = PackId(bytes.fromhex(name))
    except ValueError:
        return None
    return pack if len(pack) == 16 and pack_key(pack) == key else None


def trailer_word(trailer_bytes: int, *, epoch: int) -> int:
    """Return the 32-bit number by which packs and indexes say how long a sealed trailer is and which key sealed it."""
    assert trailer_bytes <= TRAILER_BYTES_MAX
    assert epoch <= EPOCH_MAX
    return epoch << _TRAILER_LENGTH_BITS | trailer_bytes


def parse_trailer_word(word: int) -> tuple[int, int]:
    """Return the length and the epoch in a ``trailer_word``."""
    return word & (1 << _TRAILER_LENGTH_BITS) - 1, word >> _TRAILER_LENGTH_BITS
