"""The types of the API: how one is spelled, what a missing value of it is, and how a value from a wire is accepted.

A type is a small frozen value made once from its spelling. Values inside the lab are plain: ``str``, ``int``,
``float``, ``bool``, ``list``, ``dict`` and ``DateTime``, so that a wire can write them without knowing their type.
What a pool refuses here is always a conversion failure with a text of its own; those texts are part of the protocol.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from holdfast.lab.errors import ApiFailure, internal_failure, quoted

__all__ = [
    "EPOCH",
    "NULL_REF",
    "DateTime",
    "Kind",
    "SmallInt",
    "Type",
    "describe",
    "parse_float",
    "parse_type",
    "parse_whole",
]

NULL_REF = "OpaqueRef:NULL"


class DateTime(str):
    """A time as the API spells it, ``20261120T08:57:36Z``; a string that the XML wire writes with its own tag."""

    __slots__ = ()

    @classmethod
    def of(cls, moment: datetime) -> DateTime:
        """Return the spelling of ``moment``, in whole seconds."""
        return cls(moment.astimezone(UTC).strftime("%Y%m%dT%H:%M:%SZ"))


class SmallInt(int):
    """A number that the XML wire writes with a tag, as the pool does for its few numbers of 32 bits."""

    __slots__ = ()


EPOCH = DateTime("19700101T00:00:00Z")


class Kind(enum.Enum):
    """The shapes a type can have."""

    VOID = "void"
    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    DATETIME = "datetime"
    REF = "ref"
    ENUM = "enum"
    SET = "set"
    MAP = "map"
    RECORD = "record"
    OPTION = "option"


@dataclass(frozen=True, slots=True)
class Type:
    """One type. ``name`` is the class of a ref or record, or the name of an enumeration."""

    spelling: str
    kind: Kind
    name: str = ""
    item: Type | None = None
    key: Type | None = None

    def empty(self) -> object:
        """Return what a field of this type holds when nobody said anything."""
        match self.kind:
            case Kind.INT:
                return 0
            case Kind.FLOAT:
                return 0.0
            case Kind.BOOL:
                return False
            case Kind.DATETIME:
                return EPOCH
            case Kind.REF:
                return NULL_REF
            case Kind.SET:
                return []
            case Kind.MAP | Kind.RECORD:
                return {}
            case Kind.OPTION:
                return None
            case _:
                return ""

    def accept(self, value: object, enums: Mapping[str, frozenset[str]]) -> object:
        """Return ``value`` from a wire as the lab stores it; the pool's own conversion failure when it does not fit."""
        match self.kind:
            case Kind.STRING | Kind.REF:
                return _accept_string(value)
            case Kind.INT:
                return _accept_int(value)
            case Kind.FLOAT:
                return _accept_float(value)
            case Kind.BOOL:
                if not isinstance(value, bool):
                    raise internal_failure(f"Expected bool, got '{describe(value)}'")
                return value
            case Kind.DATETIME:
                return _accept_datetime(value)
            case Kind.ENUM:
                return _accept_enum(value, self.name, enums.get(self.name))
            case Kind.SET:
                assert self.item is not None
                if not isinstance(value, list):
                    raise internal_failure(f"Expecting Rpc.Enum, but found '{describe(value)}'")
                return [self.item.accept(item, enums) for item in value]
            case Kind.MAP:
                return self._accept_map(value, enums)
            case _:
                return value

    def _accept_map(self, value: object, enums: Mapping[str, frozenset[str]]) -> object:
        assert self.item is not None
        assert self.key is not None
        if not isinstance(value, dict):
            if self.key.kind in (Kind.ENUM, Kind.INT):
                raise internal_failure("Unmarshalling error")
            raise internal_failure(f"Expecting Rpc.Dict, but found '{describe(value)}'")
        return {str(self.key.accept(key, enums)): self.item.accept(item, enums) for key, item in value.items()}

    def restore(self, value: object) -> object:
        """Return a value that was kept as JSON as it was before: times are times again, whole numbers stay floats."""
        if self.kind is Kind.DATETIME:
            return DateTime(str(value))
        if self.kind is Kind.FLOAT and isinstance(value, int):
            return float(value)
        return value


def _accept_string(value: object) -> str:
    if not isinstance(value, str) or isinstance(value, DateTime):
        raise internal_failure(f"Expected string, got '{describe(value)}'")
    return value


_WHOLE = re.compile(
    r"([-+]?)(0[xX][0-9a-fA-F][0-9a-fA-F_]*|0[oO][0-7][0-7_]*|0[bB][01][01_]*|0[uU][0-9][0-9_]*|[0-9][0-9_]*)"
)
_BASES = {"x": 16, "o": 8, "b": 2, "u": 10}


def parse_whole(text: str) -> int:
    """Return a whole number as the pool reads one from text: prefixes for bases, underscores, 64 bits.

    ``ValueError`` for everything else. Numbers with a prefix wrap around, plain ones do not.
    """
    match = _WHOLE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    sign, digits = match.groups()
    base = _BASES.get(digits[1:2].lower(), 0) if digits.startswith("0") else 0
    number = int(digits[2:].replace("_", ""), base) if base else int(digits.replace("_", ""))
    if number >= 1 << (64 if base else 63) and not (not base and sign == "-" and number == 1 << 63):
        raise ValueError(text)
    number = -number if sign == "-" else number
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _accept_int(value: object) -> int:
    if isinstance(value, bool | DateTime) or not isinstance(value, int | str):
        raise internal_failure(f"Expected int64, got '{describe(value)}'")
    if isinstance(value, int):
        return value
    try:
        return parse_whole(value)
    except ValueError as cause:
        raise internal_failure("Int64.of_string") from cause


def parse_float(text: str) -> float:
    """Return a number with a fraction as the pool reads one from text; ``ValueError`` for everything else.

    White space may stand before it, underscores anywhere, and digits may be hexadecimal.
    """
    digits = text.replace("_", "").lstrip(" \t\n\v\f\r")
    if not digits.isascii() or digits != digits.rstrip():
        raise ValueError(text)
    if digits.lstrip("+-").lower().startswith("0x"):
        return float.fromhex(digits)
    return float(digits)


def _accept_float(value: object) -> float:
    if isinstance(value, bool | DateTime) or not isinstance(value, int | float | str):
        raise internal_failure(f"Expected float, got '{describe(value)}'")
    if not isinstance(value, str):
        return float(value)
    try:
        return parse_float(value)
    except ValueError as cause:
        raise internal_failure("float_of_string") from cause


_MOMENT = re.compile(
    r"(\d{4})-?(\d{2})-?(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.\d+)?([zZ]|[+-]\d{2}:?\d{2})?", re.ASCII
)


_COMPACT = ("4", "2", "2", "T", "2", ":", "2", ":", "2", "Z")
"""The short form of a time: widths of numbers, and letters."""


def _read_compact(text: str) -> DateTime:
    """Return the time that the short form with a Z at its end tells; what follows a complete one is not looked at."""
    numbers: list[int] = []
    at = 0
    for part in _COMPACT:
        if not part.isdigit():
            if text[at] != part:
                raise _scan_failure(at, f"looking for '{part}', found '{text[at]}'")
            at += 1
            continue
        sign = 1 if text[at] in "+-" else 0
        width = len(text[at + sign : at + int(part)]) - len(text[at + sign : at + int(part)].lstrip(_DIGITS))
        if not width:
            raise _scan_failure(at + sign, f"character '{text[at + sign]}' is not a decimal digit")
        numbers.append(int(text[at : at + sign + width]))
        at += sign + width
    year, month, day, hour, minute, second = numbers
    try:
        moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError as cause:
        raise ApiFailure("INTERNAL_ERROR", f"Invalid argument: Clock__Date.of_iso8601.(fun): {text}") from cause
    if second > _LEAP_SECOND:
        raise ApiFailure("INTERNAL_ERROR", f"Invalid argument: Clock__Date.of_iso8601.(fun): {text}")
    return DateTime.of(moment + timedelta(seconds=max(0, second - 59)))


_DIGITS = "0123456789"
_LEAP_SECOND = 60


def _scan_failure(at: int, text: str) -> ApiFailure:
    told = quoted(f"scanf: bad input at char number {at}: {text}")
    return ApiFailure("INTERNAL_ERROR", f"Stdlib.Scanf.Scan_failure({told})")


def _accept_datetime(value: object) -> DateTime:
    """Return a time, spelled as the pool spells it; without a zone it is UTC, and another zone stays."""
    if not isinstance(value, str):
        raise internal_failure("Date.t_of_rpc")
    if len(value) > len("2020Z") and value[4] != "-" and value.endswith("Z"):
        return _read_compact(value)
    match = _MOMENT.fullmatch(value)
    invalid = ApiFailure("INTERNAL_ERROR", f"Invalid argument: Clock__Date.of_iso8601: {value}")
    if match is None:
        raise invalid
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as cause:
        raise invalid from cause
    zone = (match[7] or "Z").upper()
    spelled = moment.strftime("%Y%m%dT%H:%M:%S")
    return DateTime(spelled + (zone if ":" in zone or zone == "Z" else f"{zone[:3]}:{zone[3:]}"))


_ODD_ENUMS = {"bond_mode": "Unmarshalling error in bond-mode", "event_operation": "Unmarshalling error"}
"""Enumerations that the pool reads letter by letter; all others in any case."""


def _accept_enum(value: object, name: str, choices: frozenset[str] | None) -> str:
    odd = _ODD_ENUMS.get(name)
    if not isinstance(value, str) or isinstance(value, DateTime):
        raise internal_failure(odd or "Unknown tag/contents")
    if choices is None or value in choices:
        return value
    if odd is None:
        wanted = value.lower()
        for choice in choices:
            if choice.lower() == wanted:
                return choice
    raise internal_failure(odd or "Unknown tag/contents")


def describe(value: object) -> str:
    """Return how a pool names a wire value in its failures, e.g. ``S(yes)`` or ``[I(1);I(2)]``."""
    match value:
        case None:
            return "N"
        case bool():
            return f"B({str(value).lower()})"
        case int():
            return f"I({value})"
        case float():
            return f"F({value:g})"
        case bytes():
            return f"B64({value.decode('utf-8', 'replace')})"
        case DateTime():
            return f"D({value})"
        case str():
            return f"S({value})"
        case list():
            return "[" + ";".join(describe(item) for item in value) + "]"
        case dict():
            return "{" + ";".join(f"{key}:{describe(item)}" for key, item in value.items()) + "}"
        case _:
            return str(value)


_PLAIN = {kind.value: kind for kind in (Kind.VOID, Kind.STRING, Kind.INT, Kind.FLOAT, Kind.BOOL, Kind.DATETIME)}


@cache
def parse_type(spelling: str) -> Type:
    """Return the type with this spelling, e.g. ``VDI ref set`` or ``(string -> enum vdi_operations) map``."""
    if spelling in _PLAIN:
        return Type(spelling, _PLAIN[spelling])
    if spelling.endswith(" set"):
        return Type(spelling, Kind.SET, item=parse_type(spelling.removesuffix(" set")))
    if spelling.endswith(" option"):
        return Type(spelling, Kind.OPTION, item=parse_type(spelling.removesuffix(" option")))
    if spelling.endswith(" ref"):
        return Type(spelling, Kind.REF, name=spelling.removesuffix(" ref"))
    if spelling.endswith(" map"):
        key, _, item = spelling.removesuffix(") map").removeprefix("(").partition(" -> ")
        return Type(spelling, Kind.MAP, key=parse_type(key), item=parse_type(item))
    if spelling.startswith("enum "):
        return Type(spelling, Kind.ENUM, name=spelling.removeprefix("enum "))
    return Type(spelling, Kind.RECORD, name=spelling.removesuffix(" record"))
