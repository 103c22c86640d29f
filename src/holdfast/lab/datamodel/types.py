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
from datetime import UTC, datetime
from functools import cache

from holdfast.lab.errors import internal_failure

__all__ = ["EPOCH", "NULL_REF", "DateTime", "Kind", "Type", "describe", "parse_type"]

NULL_REF = "OpaqueRef:NULL"


class DateTime(str):
    """A time as the API spells it, ``20261120T08:57:36Z``; a string that the XML wire writes with its own tag."""

    __slots__ = ()

    @classmethod
    def of(cls, moment: datetime) -> DateTime:
        """Return the spelling of ``moment``, in whole seconds."""
        return cls(moment.astimezone(UTC).strftime("%Y%m%dT%H:%M:%SZ"))


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
                return DateTime(_accept_string(value))
            case Kind.ENUM:
                return _accept_enum(value, enums.get(self.name))
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
    if not isinstance(value, str):
        raise internal_failure(f"Expected string, got '{describe(value)}'")
    return value


def _accept_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise internal_failure(f"Expected int64, got '{describe(value)}'")
    if isinstance(value, int):
        return value
    if not re.fullmatch(r"-?(?:0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)", value):
        raise internal_failure("Int64.of_string")
    number = int(value.replace("_", ""), 16 if "x" in value.lower() else 10)
    if not -(1 << 63) <= number < 1 << 63:
        raise internal_failure("Int64.of_string")
    return number


def _accept_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise internal_failure(f"Expected float, got '{describe(value)}'")
    try:
        return float(value)
    except ValueError as cause:
        raise internal_failure("float_of_string") from cause


def _accept_enum(value: object, choices: frozenset[str] | None) -> str:
    if not isinstance(value, str) or (choices is not None and value not in choices):
        raise internal_failure("Unknown tag/contents")
    return value


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
