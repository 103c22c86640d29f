"""How the pool's own database names and spells what the API shows: columns, and values as text.

A column is the field's name with its namespace set off by two underscores (``name__label``); a value is always text,
sets and maps as s-expressions. Invariant: ``parse`` gives back what ``spell`` was given, for every type of a field.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.datamodel import DateTime, Kind, Type

__all__ = ["SpellingInvalid", "column_of", "parse", "spell"]

_PREFIXES = ("name_", "qos_", "HVM_", "VCPUs_", "actions_", "memory_", "API_version_", "io_", "PV_")
_PLAIN = frozenset({"PV_drivers_version", "PV_drivers_up_to_date", "PV_drivers_detected"})

_PLAINLY_NAMED = frozenset({"pool", "data_source"})

Parsed = str | list["Parsed"]


class SpellingInvalid(Exception):
    """The text is not what the database writes for such a value."""


def column_of(name: str, *, cls: str = "") -> str:
    """Return the column of a field; a few classes keep their names outside of the usual namespace."""
    if name in _PLAIN or (cls in _PLAINLY_NAMED and name.startswith("name_")):
        return name
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return f"{prefix}_{name.removeprefix(prefix)}"
    return name


def spell(value: object) -> str:
    """Return a value as the database writes it."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.18g}"
        case list():
            return "(" + " ".join(_quoted(spell(item)) for item in value) + ")"
        case dict():
            pairs = cast("dict[str, object]", value).items()
            return "(" + " ".join(f"({_quoted(key)} {_quoted(spell(item))})" for key, item in pairs) + ")"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def parse(text: str, wanted: Type) -> object:
    """Return the value that ``text`` spells; ``SpellingInvalid`` when it spells none of that type."""
    try:
        return _parse(text, wanted)
    except (ValueError, IndexError, RecursionError) as cause:
        raise SpellingInvalid(f"{text[:80]!r} is no {wanted.spelling}") from cause


def _parse(text: str, wanted: Type) -> object:
    match wanted.kind:
        case Kind.INT:
            return int(text)
        case Kind.FLOAT:
            return float(text)
        case Kind.BOOL:
            if text not in ("true", "false"):
                raise ValueError(text)
            return text == "true"
        case Kind.DATETIME:
            return DateTime(text)
        case Kind.SET:
            assert wanted.item is not None
            return [_parse(_leaf(item), wanted.item) for item in _items(text)]
        case Kind.MAP:
            assert wanted.item is not None
            found: dict[str, object] = {}
            for pair in _items(text):
                if not isinstance(pair, list) or len(pair) != 2:
                    raise ValueError(text)
                found[_leaf(pair[0])] = _parse(_leaf(pair[1]), wanted.item)
            return found
        case _:
            return text


def _leaf(item: Parsed) -> str:
    if not isinstance(item, str):
        raise ValueError(item)
    return item


def _items(text: str) -> list[Parsed]:
    """Return the items of an s-expression that is one list."""
    if not text.startswith("("):
        raise ValueError(text)
    found, end = _read_list(text, 1)
    if text[end:].strip():
        raise ValueError(text)
    return found


def _read_list(text: str, at: int) -> tuple[list[Parsed], int]:
    items: list[Parsed] = []
    while text[at] != ")":
        if text[at] == "(":
            inner, at = _read_list(text, at + 1)
            items.append(inner)
        elif text[at] == "'":
            leaf, at = _read_leaf(text, at + 1)
            items.append(leaf)
        elif text[at].isspace():
            at += 1
        else:
            raise ValueError(text)
    return items, at + 1


def _read_leaf(text: str, at: int) -> tuple[str, int]:
    letters: list[str] = []
    while text[at] != "'":
        if text[at] == "\\":
            at += 1
        letters.append(text[at])
        at += 1
    return "".join(letters), at + 1
