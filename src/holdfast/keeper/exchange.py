"""What the keeper and a store tell each other through files in ``.keeper/``: ``docs/formats/keeper.md`` is the law.

The store writes requests; the keeper writes its word and what it holds. Invariant: nothing that a request says can make
the keeper let go of anything, so whoever writes requests can only make locks longer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "HELD_FOLDER",
    "KEEPER_FOLDER",
    "REQUESTS_FOLDER",
    "REQUEST_LINE_BYTES_MAX",
    "WORD_FILE",
    "HeldFile",
    "KeeperWord",
    "format_held",
    "format_word",
    "held_name",
    "is_kept",
    "parse_held",
    "parse_requests",
    "parse_word",
    "request_line",
]

KEEPER_FOLDER = ".keeper"
"""Below the store's folder; a listing of objects skips it, because no key begins with a dot."""
REQUESTS_FOLDER = "requests"
HELD_FOLDER = "held"
WORD_FILE = "word.json"

REQUEST_LINE_BYTES_MAX = 256
"""A time and the longest name of an object that is kept, with room to spare."""

_WORD_VERSION = 1
_HELD_HEADER = "holdfast-keeper-held 1"

_HEX_32 = r"[0-9a-f]{32}"
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
_KEPT = re.compile(
    rf"packs/(?P<pack>[0-9a-f]{{2}})/{_HEX_32}"
    rf"|points/(?P<point>[0-9a-f]{{2}})[0-9a-f]{{30}}/{_NAME}"
    rf"|holdfast\.json|(?:keys|immutability|epochs|holders|moved|canary)/{_NAME}|features/(?:read|write)/{_NAME}"
)
"""Objects that are held: what points need, and what opens the repository. Everything else comes and goes."""


@dataclass(frozen=True, slots=True)
class HeldFile:
    """What the keeper knows of one object."""

    until_s: int
    """By the keeper's own time, seconds since 1970."""
    is_held: bool
    """False once its time is over and the keeper has let go of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperWord:
    """What a keeper says of itself after each look."""

    days: int
    days_max: int
    time_s: int
    """The keeper's own time: never ahead of the server's clock, and it does not jump."""
    behind_s: int
    """How far that is behind the server's clock, after a time in which no keeper ran or while that clock is wrong."""
    held_files: int
    not_held: int
    """Objects that cannot be held: they have a second name somewhere, or belong to somebody else than the folder."""


def is_kept(key: str) -> bool:
    """Return whether the keeper holds objects of this name."""
    return _KEPT.fullmatch(key) is not None


def held_name(key: str) -> str:
    """Return the name of the file below ``held/`` that tells of an object; of one that ``is_kept``."""
    found = _KEPT.fullmatch(key)
    assert found is not None
    if found["pack"]:
        return f"packs-{found['pack']}"
    return f"points-{found['point']}" if found["point"] else "rest"


def request_line(key: str, until_s: int) -> bytes:
    """Return a request to hold an object until a time at least."""
    return f"{until_s} {key}\n".encode()


def parse_requests(text: bytes) -> Iterator[tuple[str, int]]:
    """Yield object and time of each whole line; lines that are not requests are passed over."""
    for line in text.split(b"\n")[:-1]:
        until, _, name = line.partition(b" ")
        if len(line) > REQUEST_LINE_BYTES_MAX or not (until.isdigit() and len(until) <= 12):
            continue
        key = name.decode("ascii", errors="replace")
        if is_kept(key):
            yield key, int(until)


def format_held(held: dict[str, HeldFile]) -> bytes:
    """Return what is known of some objects as it is stored."""
    lines = [f"{key} {each.until_s} {'held' if each.is_held else 'freed'}" for key, each in sorted(held.items())]
    return "\n".join([_HELD_HEADER, *lines, ""]).encode()


def parse_held(text: bytes) -> dict[str, HeldFile]:
    """Return what ``format_held`` wrote. ValueError for anything else."""
    lines = text.decode("ascii").split("\n")
    if lines[0] != _HELD_HEADER or lines[-1] != "":
        raise ValueError("it is cut short, or not a list of held objects")
    held: dict[str, HeldFile] = {}
    for line in lines[1:-1]:
        key, until, state = line.split(" ")
        if not is_kept(key) or state not in ("held", "freed"):
            raise ValueError(f"it has the line {line[:80]!r}")
        held[key] = HeldFile(int(until), state == "held")
    return held


def format_word(word: KeeperWord) -> bytes:
    """Return a keeper's word as it is stored."""
    fields = {name: getattr(word, name) for name in KeeperWord.__slots__}
    return (json.dumps({"version": _WORD_VERSION, **fields}, indent=2) + "\n").encode()


def parse_word(text: bytes) -> KeeperWord:
    """Return what ``format_word`` wrote; fields of later versions are skipped. ValueError for anything else."""
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.get("version") != _WORD_VERSION:
        raise ValueError("it is not the word of a keeper that this version knows")
    values: dict[str, int] = {}
    for name in KeeperWord.__slots__:
        if type(value := fields.get(name)) is not int:
            raise ValueError(f"it lacks the number {name}")
        values[name] = value
    return KeeperWord(**values)
