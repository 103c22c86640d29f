"""Ways to spoil an object: flips, cuts, additions, other objects in its place, older objects that come back."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.corruption.judge import keys_of_all_kinds, sound_objects
from tests.support.repositories import World, image_of

__all__ = ["WAYS", "Spoiled", "spoil"]


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A repository in which one object is not what it was."""

    objects: Mapping[str, bytes]
    key: str
    how: str


def spoil(chance: random.Random, way: str) -> Spoiled:
    """Return the frozen repository after one object was spoiled in some way."""
    objects = sound_objects()
    keys = keys_of_all_kinds()
    # By kind first: there are many packs, and few of most other objects.
    kind = chance.choice(sorted({key.partition("/")[0] for key in keys}))
    key = chance.choice([each for each in keys if each.partition("/")[0] == kind])
    content = WAYS[way](chance, key, objects)
    return Spoiled({**objects, key: content}, key, f"{way} of {key}")


def _flip(chance: random.Random, key: str, objects: Mapping[str, bytes]) -> bytes:
    spoiled = bytearray(objects[key])
    spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
    return bytes(spoiled)


def _cut(chance: random.Random, key: str, objects: Mapping[str, bytes]) -> bytes:
    return objects[key][: chance.randrange(len(objects[key]))]


def _add(chance: random.Random, key: str, objects: Mapping[str, bytes]) -> bytes:
    """Return the object with something before it, after it, or in it."""
    content, at = objects[key], chance.choice([0, len(objects[key]), chance.randrange(len(objects[key]))])
    more = chance.choice([chance.randbytes(chance.randint(1, 64)), bytes(chance.randint(1, 64)), content])
    return content[:at] + more + content[at:]


def _swap(chance: random.Random, key: str, objects: Mapping[str, bytes]) -> bytes:
    """Return another object of the same kind, or of any."""
    same = [each for each in objects if each.partition("/")[0] == key.partition("/")[0] and each != key]
    return objects[chance.choice(same if same and chance.random() < 0.8 else sorted(objects))]


def _foreign(chance: random.Random, key: str, objects: Mapping[str, bytes]) -> bytes:
    """Return an object of another repository, of the same kind where it has one."""
    other = World(seed=chance.randint(1, 1000))
    other.back_up(image_of({0: 1, 1: 2, 2: 3}, count=4), run="r-3")
    foreign = other.memory.snapshot()
    same = [each for each in sorted(foreign) if each.partition("/")[0] == key.partition("/")[0]]
    return foreign[chance.choice(same or sorted(foreign))]


def _zeros(chance: random.Random, key: str, objects: Mapping[str, bytes]) -> bytes:
    """Return the object with zeros from somewhere on, as after a power failure on a careless disk."""
    at = chance.randrange(len(objects[key]))
    length = chance.choice([len(objects[key]) - at, 512])
    return objects[key][:at] + bytes(min(length, len(objects[key]) - at)) + objects[key][at + length :]


WAYS: dict[str, Callable[[random.Random, str, Mapping[str, bytes]], bytes]] = {
    "flip": _flip,
    "cut": _cut,
    "addition": _add,
    "swap": _swap,
    "foreign": _foreign,
    "zeros": _zeros,
}
