"""The memory of a guest, written to a disk when its VM is suspended and read again when it goes on.

The image names the VM it is of and carries pages with their hash. Invariant: an image is believed only whole; a guest
whose image lost or changed a byte does not go on.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass

import numpy as np

from holdfast.core import KIB, MIB, SECTOR_BYTES, Entropy
from holdfast.lab.disks import DiskStore
from holdfast.lab.images import new_generator

__all__ = ["MemoryImage", "read_memory_image", "write_memory_image"]

_MAGIC = b"LABMEM01"
_HEAD = struct.Struct(">8sI32s")
_BODY_AT = 4 * KIB
_PAGE_BYTES = 4 * KIB
_BODY_BYTES = 2 * MIB
_WORDS = b"the quick brown fox jumps over the lazy dog "


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryImage:
    """A guest's memory as an image told it."""

    vm_uuid: str
    body_bytes: int


def write_memory_image(store: DiskStore, uuid: str, *, vm_uuid: str, entropy: Entropy) -> None:
    """Write a guest's memory to a disk: some MiB of pages, a third each of text, of noise and of nothing."""
    generator = new_generator(entropy)
    body_bytes = min(_BODY_BYTES, (store.size_bytes(uuid) - _BODY_AT) // _PAGE_BYTES * _PAGE_BYTES)
    pages = b"".join(_page(generator, number) for number in range(body_bytes // _PAGE_BYTES))
    facts = json.dumps({"vm": vm_uuid, "body_bytes": body_bytes}).encode()
    digest = hashlib.sha256(facts + pages).digest()
    head = _HEAD.pack(_MAGIC, len(facts), digest) + facts
    store.write(uuid, 0, head.ljust(-(-len(head) // SECTOR_BYTES) * SECTOR_BYTES, b"\0"))
    store.write(uuid, _BODY_AT, pages)


def _page(generator: np.random.Generator, number: int) -> bytes:
    if number % 3 == 0:
        return (_WORDS * (_PAGE_BYTES // len(_WORDS) + 1))[:_PAGE_BYTES]
    return generator.bytes(_PAGE_BYTES) if number % 3 == 1 else bytes(_PAGE_BYTES)


def read_memory_image(store: DiskStore, uuid: str) -> MemoryImage | None:
    """Return what memory the disk holds; ``None`` when it holds none that can be believed."""
    if not store.exists(uuid) or store.size_bytes(uuid) < _BODY_AT:
        return None
    magic, length_bytes, digest = _HEAD.unpack(store.read(uuid, 0, _HEAD.size))
    if magic != _MAGIC or _HEAD.size + length_bytes > _BODY_AT:
        return None
    facts = store.read(uuid, _HEAD.size, length_bytes)
    try:
        told = json.loads(facts)
        body_bytes = int(told["body_bytes"])
    except (ValueError, KeyError, TypeError):
        return None
    if not 0 <= body_bytes <= store.size_bytes(uuid) - _BODY_AT:
        return None
    if hashlib.sha256(facts + store.read(uuid, _BODY_AT, body_bytes)).digest() != digest:
        return None
    return MemoryImage(vm_uuid=str(told["vm"]), body_bytes=body_bytes)
