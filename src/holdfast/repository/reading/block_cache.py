"""Decoded blocks of one disk, a bounded number of them, for random reads from several threads.

Invariant: a block is read by one thread at a time; whoever wants it meanwhile waits for that one instead of decoding
it again. Who reads settles every claim it made, so nobody waits for ever.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

__all__ = ["BlockCache", "Claims"]


@dataclass(slots=True)
class Claims:
    """How a number of blocks is to be had."""

    cached: dict[int, bytes] = field(default_factory=dict)
    mine: list[int] = field(default_factory=list)
    """To be read, and settled, by whoever made the claim."""
    others: dict[int, Future[bytes]] = field(default_factory=dict)
    """Being read by somebody else."""


class BlockCache:
    """The blocks that were used last, and those on their way. Thread-safe."""

    def __init__(self, *, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._coming: dict[int, Future[bytes]] = {}

    def claim(self, blocks: Iterable[int]) -> Claims:
        """Return how to get these blocks; the caller reads those that are ``mine``, and settles or fails them."""
        claims = Claims()
        with self._lock:
            for block in blocks:
                kept = self._kept.get(block)
                if kept is not None:
                    self._kept.move_to_end(block)
                    claims.cached[block] = kept
                elif block in self._coming:
                    claims.others[block] = self._coming[block]
                else:
                    claims.mine.append(block)
                    self._coming[block] = Future()
        return claims

    def claim_missing(self, blocks: Iterable[int]) -> list[int]:
        """Return those of the blocks that are neither kept nor coming; the caller settles or fails them."""
        with self._lock:
            mine = [block for block in blocks if block not in self._kept and block not in self._coming]
            for block in mine:
                self._coming[block] = Future()
        return mine

    def settle(self, block: int, content: bytes) -> None:
        """Keep a block that was claimed, and hand it to everybody who waits for it."""
        with self._lock:
            coming = self._coming.pop(block)
            self._kept[block] = content
            while len(self._kept) > self._blocks_max:
                self._kept.popitem(last=False)
        coming.set_result(content)

    def fail(self, block: int, failure: BaseException) -> None:
        """Give up a claim; everybody who waits for the block gets the failure."""
        with self._lock:
            coming = self._coming.pop(block)
        coming.set_exception(failure)
