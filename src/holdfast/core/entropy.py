"""Chance as a seam: random bytes arrive through the constructor, so a simulation can be repeated from its seed."""

from __future__ import annotations

import random
import secrets
import threading
from typing import Protocol

__all__ = ["Entropy", "SeededEntropy", "SystemEntropy"]


class Entropy(Protocol):
    """Where randomness comes from. Implementations are thread-safe."""

    def token_bytes(self, length_bytes: int) -> bytes:
        """Return random bytes. In production they are fit for keys."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a float between the two, for back-off and jitter."""
        ...


class SystemEntropy:
    """The operating system's random source."""

    def token_bytes(self, length_bytes: int) -> bytes:
        """See ``Entropy.token_bytes``."""
        return secrets.token_bytes(length_bytes)

    def uniform(self, low: float, high: float) -> float:
        """See ``Entropy.uniform``."""
        return random.SystemRandom().uniform(low, high)


class SeededEntropy:
    """A repeatable source for tests and simulations. Never for real keys."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def token_bytes(self, length_bytes: int) -> bytes:
        """See ``Entropy.token_bytes``."""
        with self._lock:
            return self._random.randbytes(length_bytes)

    def uniform(self, low: float, high: float) -> float:
        """See ``Entropy.uniform``."""
        with self._lock:
            return self._random.uniform(low, high)
