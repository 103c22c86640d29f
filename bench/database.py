"""A database file as a real one looks, and the changes that a day's work makes in it.

The file is written by SQLite itself: 8 KiB pages of rows with words, hexadecimal keys and random tokens, an index over
them, and a preallocated tail of zeros. Invariant: everything follows from the seed, so a figure can be measured again.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE_BYTES", "PageWrite", "plan_page_writes", "spoil_page", "write_database"]

PAGE_BYTES = 8192
LIVE_SHARE = 0.85
"""How much of the file holds rows; the rest is what a database reserves in advance."""

_ROWS_PER_STEP = 40_000
_PAGE_SIZES = (4096, 8192, 16384)
_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PageWrite:
    """One page rewritten in place: where, how long, and from where half of its new content is taken."""

    offset_bytes: int
    length_bytes: int
    other_offset_bytes: int


def write_database(path: Path, *, size_bytes: int, seed: int = 7) -> int:
    """Write a database of exactly ``size_bytes``; return how many bytes of it hold pages (the rest is zero)."""
    chance = random.Random(seed)
    connection = sqlite3.connect(path)
    connection.executescript(
        f"pragma page_size={PAGE_BYTES}; pragma journal_mode=off; pragma synchronous=off;"
        "create table t(id integer primary key, k text, a text, b blob, n real);"
    )
    rows = _rows(chance)
    while path.stat().st_size < size_bytes * LIVE_SHARE:
        connection.executemany(
            "insert into t(k, a, b, n) values (?, ?, ?, ?)", (next(rows) for _ in range(_ROWS_PER_STEP))
        )
        connection.commit()
    connection.close()
    live_bytes = min(path.stat().st_size, size_bytes)
    with path.open("r+b") as file:
        file.truncate(live_bytes)
        file.truncate(size_bytes)
    return live_bytes


def plan_page_writes(*, live_bytes: int, share: float, seed: int = 11) -> list[PageWrite]:
    """Return rewrites of ``share`` of the file's 8 KiB pages: 4, 8 or 16 KiB each, at random places."""
    chance = random.Random(seed)
    writes = []
    for _ in range(round(live_bytes / PAGE_BYTES * share)):
        length_bytes = chance.choice(_PAGE_SIZES)
        writes.append(
            PageWrite(
                offset_bytes=chance.randrange(live_bytes // length_bytes) * length_bytes,
                length_bytes=length_bytes,
                other_offset_bytes=chance.randrange((live_bytes - _PAGE_SIZES[-1]) // _PAGE_SIZES[0]) * _PAGE_SIZES[0],
            )
        )
    return writes


def spoil_page(page: bytes, other: bytes, *, seed: int) -> bytes:
    """Return the page after an update: about half of its sectors are another page's, its header and trailer are new."""
    assert len(page) == len(other)
    chance = random.Random(seed)
    changed = bytearray(page)
    for offset in range(0, len(page), _SECTOR_BYTES):
        if chance.random() < 0.5:
            changed[offset : offset + _SECTOR_BYTES] = other[offset : offset + _SECTOR_BYTES]
    changed[8:16] = chance.randbytes(8)
    changed[-8:] = chance.randbytes(8)
    return bytes(changed)


def _rows(chance: random.Random) -> Iterator[tuple[str, str, bytes, float]]:
    """Yield rows for ever: a hexadecimal key, 24 words, 40 random bytes, a number."""
    words = _words(chance, count=6000)
    phrases = [" ".join(chance.choices(words, k=8)) for _ in range(60_000)]
    while True:
        text = " ".join(chance.choices(phrases, k=3))
        yield f"{chance.getrandbits(64):016x}", text, chance.randbytes(40), chance.random()


def _words(chance: random.Random, *, count: int) -> list[str]:
    """Return made-up words of two to four syllables, as skewed in their letters as a language is."""
    heads = [
        "b",
        "br",
        "c",
        "ch",
        "d",
        "f",
        "g",
        "gr",
        "h",
        "l",
        "m",
        "n",
        "p",
        "pr",
        "r",
        "s",
        "st",
        "t",
        "tr",
        "v",
        "",
    ]
    vowels = ["a", "e", "e", "i", "o", "u", "ea", "ou"]
    tails = ["", "", "n", "r", "s", "t", "l", "nd", "ng"]
    syllables = [head + vowel + tail for head in heads for vowel in vowels for tail in tails]
    return ["".join(chance.choices(syllables, k=chance.randint(2, 4))) for _ in range(count)]
