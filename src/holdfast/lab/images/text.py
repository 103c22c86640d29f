"""Invented content that behaves like people's: words with a natural distribution, and bytes that do not compress.

Invariant: the same generator state gives the same bytes, on every machine.
"""

from __future__ import annotations

import numpy as np

from holdfast.core import MIB, Entropy

__all__ = ["Prose", "new_generator", "noise"]

_SYLLABLES = [consonant + vowel for consonant in "bdklmnrst" for vowel in "aeiou"]
_VOCABULARY = 4096
_WORD_SYLLABLES_MAX = 4
_CORPUS_BYTES_MAX = 4 * MIB


def new_generator(entropy: Entropy) -> np.random.Generator:
    """Return a fast generator seeded from ``entropy``."""
    return np.random.default_rng(int.from_bytes(entropy.token_bytes(16), "big"))


def noise(generator: np.random.Generator, length_bytes: int) -> bytes:
    """Return bytes as of compressed media: nothing can make them smaller."""
    return generator.bytes(length_bytes)


class Prose:
    """Text cut from one invented corpus, so that gigabytes of it cost a copy each and still never repeat in step."""

    def __init__(self, generator: np.random.Generator, *, corpus_bytes: int = _CORPUS_BYTES_MAX) -> None:
        self._generator = generator
        lengths = generator.integers(1, _WORD_SYLLABLES_MAX + 1, _VOCABULARY).tolist()
        syllables = generator.integers(0, len(_SYLLABLES), (_VOCABULARY, _WORD_SYLLABLES_MAX)).tolist()
        words = [
            "".join([_SYLLABLES[one] for one in row[:length]]) for row, length in zip(syllables, lengths, strict=True)
        ]
        # Zipf's law: the n-th most frequent word of a language is about n times rarer than the first.
        weights = 1.0 / np.arange(1, _VOCABULARY + 1)
        count = min(corpus_bytes, _CORPUS_BYTES_MAX) // 4
        picks = generator.choice(_VOCABULARY, count, p=weights / weights.sum())
        self._corpus = " ".join([words[pick] for pick in picks.tolist()])

    def text(self, characters: int) -> str:
        """Return so many characters, all ASCII."""
        start = int(self._generator.integers(0, len(self._corpus)))
        text = self._corpus[start : start + characters]
        while len(text) < characters:
            text += self._corpus[: characters - len(text)]
        return text
