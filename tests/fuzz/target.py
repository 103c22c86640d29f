"""What a fuzz target is: a decoder, and valid inputs from which mutations begin.

Invariant: a target takes nothing but the errors that a decoder may raise; whatever else comes out of it is a mistake.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from holdfast.core import HoldfastError

__all__ = ["Target", "mutated", "once"]

Samples = Callable[[], tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder under fuzzing."""

    decode: Callable[[bytes], None]
    samples: Samples
    """Valid inputs, or nearly."""

    def feed(self, data: bytes) -> bool:
        """Return whether the decoder took these bytes; any error that is not one of ours passes through."""
        try:
            self.decode(data)
        except HoldfastError:
            return False
        return True


def once(make: Callable[[], Iterator[bytes]]) -> Samples:
    """Return samples that are made when they are first asked for."""
    return functools.cache(lambda: tuple(make()))


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with a few changes of the kinds that break parsers: flips, cuts, repeats, extreme numbers."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        if not changed:
            return bytes(chance.randbytes(chance.randrange(64)))
        at = chance.randrange(len(changed))
        match chance.randrange(6):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                del changed[at : at + chance.randrange(1, 64)]
            case 3:
                changed[at:at] = changed[at : at + chance.randrange(1, 64)]
            case 4:
                width = chance.choice([2, 4, 8])
                changed[at : at + width] = chance.choice([b"\0", b"\xff", b"\x7f"]) * width
            case _:
                del changed[chance.randrange(len(changed)) :]
    return bytes(changed)
