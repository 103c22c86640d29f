"""What text the database of a pool can hold: what XML can, and no map with an empty key.

The pool refuses a field with other text when it is written as a whole, and cuts the text short before the first
character that it cannot hold in a new object, a new key of a map and a new item of a set.
Invariant: text that XML can hold comes back as it was given.
"""

from __future__ import annotations

import re

from holdfast.lab.errors import ApiFailure

__all__ = ["check_text", "cut_text"]

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


def check_text(value: object) -> None:
    """Return when a field can be set to the value; ``INTERNAL_ERROR`` with the pool's reason otherwise."""
    match value:
        case str():
            if not value.isprintable() and _UNFIT.search(value):
                raise ApiFailure("INTERNAL_ERROR", "Db_exn.Invalid_value")
        case list():
            for item in value:
                check_text(item)
        case dict():
            if "" in value:
                raise ApiFailure("INTERNAL_ERROR", "Db_exn.Empty_key_in_map")
            for key, item in value.items():
                check_text(key)
                check_text(item)


def cut_text(value: object) -> object:
    """Return the value as a new object holds it; ``INTERNAL_ERROR`` for a map with an empty key."""
    match value:
        case str():
            unfit = None if value.isprintable() else _UNFIT.search(value)
            return value if unfit is None else type(value)(value[: unfit.start()])
        case list():
            return [cut_text(item) for item in value]
        case dict():
            if "" in value:
                raise ApiFailure("INTERNAL_ERROR", "Db_exn.Empty_key_in_map")
            return {cut_text(key): cut_text(item) for key, item in value.items()}
        case _:
            return value
