"""Disks of the simulation: a few blocks on a large, mostly empty disk, so that maps have several leaves."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from blake3 import blake3

from holdfast.core import BLOCK_BYTES, Cancellation, SeededEntropy
from holdfast.model import Coverage, DataRun, Extent, ZeroRun
from holdfast.repository import Repository, RunWriter, StoredDisk
from holdfast.repository.layout import SAMPLE_MASK
from holdfast.repository.sealing import KeyRing

__all__ = ["PLACES", "SIZE_BYTES", "Content", "Palette", "changed_places", "mutate", "read_content", "write_content"]

Content = Mapping[int, int]
"""What each block holds that is not zero: block number → content number."""

SIZE_BYTES = 2 * 4096 * BLOCK_BYTES + 3 * BLOCK_BYTES + 512
"""Two leaves and a short third one whose last block is short."""

PLACES = (*range(8), 4094, 4095, 4096, 4097, 5000, 8192, 8195)
_STRETCHES = (0, 2, 4, 4094)
_STRETCH_CHANCE = 0.3
"""How often a guest writes a file of four blocks. They share a frame, and die one by one."""

_CONTENTS_MAX = 48
_FAMILIES = 6
_SIBLING_CHANCE = 0.5
"""How often a guest writes only a little into a block."""

_TRIES_MAX = 4000


class Palette:
    """The few contents that blocks of one world have. The index samples half of them, so that it is of use."""

    def __init__(self, keys: KeyRing) -> None:
        self.blocks: dict[int, bytes] = {}
        for number in range(1, _CONTENTS_MAX + 1):
            self.blocks[number] = _block(keys, number, sampled=number % 2 == 0)

    def piece(self, content: Content, extent: Extent) -> bytes:
        """Return what a disk with this content has in one block or a part of it."""
        number = content.get(extent.offset_bytes // BLOCK_BYTES, 0)
        return (self.blocks[number] if number else bytes(BLOCK_BYTES))[: extent.length_bytes]


def _block(keys: KeyRing, number: int, *, sampled: bool) -> bytes:
    """Return a block that compresses to a third and that the index samples, or not.

    It differs from others of its family in the first sector only, so that writing one over another makes a patch.
    """
    random_part = SeededEntropy(number % _FAMILIES).token_bytes(BLOCK_BYTES // 3)
    for attempt in range(_TRIES_MAX):
        head = attempt.to_bytes(8, "little") + number.to_bytes(8, "little")
        block = (head + random_part).ljust(BLOCK_BYTES, b"-")
        if (blake3(block, key=keys.block_id_key).digest()[0] & SAMPLE_MASK == 0) == sampled:
            return block
    raise AssertionError("one id in 64 is sampled")


def mutate(content: Content, chance: random.Random) -> Content:
    """Return the disk after a guest wrote a few blocks."""
    changed = dict(content)
    if chance.random() < _STRETCH_CHANCE:
        first, written = chance.choice(_STRETCHES), chance.randint(1, _CONTENTS_MAX)
        changed.update({first + number: (written + number) % _CONTENTS_MAX + 1 for number in range(4)})
    for place in chance.sample(PLACES, chance.randint(1, 4)):
        written = chance.randint(0, _CONTENTS_MAX)
        if place in changed and chance.random() < _SIBLING_CHANCE:
            written = (changed[place] + _FAMILIES - 1) % _CONTENTS_MAX + 1
        if written == 0:
            changed.pop(place, None)
        else:
            changed[place] = written
    return changed


def changed_places(before: Content, after: Content, chance: random.Random) -> list[int]:
    """Return what a pool would call changed: all that is different, and some that is not."""
    different = {place for place in PLACES if before.get(place, 0) != after.get(place, 0)}
    return sorted(different | set(chance.sample(PLACES, 2)))


def write_content(
    writer: RunWriter,
    palette: Palette,
    content: Content,
    *,
    changes: Iterable[int] | None,
    reference: StoredDisk | None,
) -> StoredDisk:
    """Store a disk: whole, or only its changes against the reference."""
    coverage = Coverage.WHOLE if changes is None else Coverage.CHANGES
    disk = writer.open_disk(SIZE_BYTES, coverage=coverage, reference=reference)
    for place in sorted(content) if changes is None else changes:
        start = place * BLOCK_BYTES
        length = min(BLOCK_BYTES, SIZE_BYTES - start)
        number = content.get(place, 0)
        disk.write(DataRun(start, palette.blocks[number][:length]) if number else ZeroRun(start, length))
    return disk.finish()


def read_content(repository: Repository, palette: Palette, stored: StoredDisk, cancel: Cancellation) -> Content:
    """Return what a stored disk holds, block by block; a block that nobody wrote is an error."""
    found: dict[int, int] = {}
    for run in repository.source(stored, cancel=cancel).runs():
        for at in range(0, run.length_bytes, BLOCK_BYTES):
            piece = bytes(run.data[at : at + BLOCK_BYTES])
            place = (run.offset_bytes + at) // BLOCK_BYTES
            found[place] = next(number for number, block in palette.blocks.items() if block[: len(piece)] == piece)
    return found
