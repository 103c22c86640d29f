"""The datamodel as data: classes, fields, enumerations and calls, read once from the text tables beside this file.

The tables are the lab's own compact notation; every generic answer of the pool is derived from them.

    class   name  flags               all: has get_all and its kin; label: get_by_name_label; crud: create and destroy;
                                      value: a plain record without objects; own: none of the generic calls;
                                      removed: whatever would read or make objects is no more
    extend  name                      goes on with an earlier class
    field   name  type  access  = default  <- Class.field  removed
                                      access: rw (settable), new (given at creation), ro; '<-' names the reference
                                      field on the other side from which this set is computed; 'removed': its
                                      value is still in records, its own calls are no more
    enum    name  words
    call    name  (parameters)  result  role  flags
                                      'name? type' is optional; role: the least privileged one that may call;
                                      flags: async, removed, hidden, open (needs no session), forwarded (handed on
                                      to the first host among the parameters, which must be alive)

Invariant: a name occurs once per class, and every relation names a field that exists or is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from holdfast.lab.datamodel.types import Type, parse_type

__all__ = ["Call", "ClassTable", "Datamodel", "Field", "Parameter", "load_datamodel"]

_TABLES = ("session", "vm", "storage", "network", "pool", "host", "device", "hidden")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a class."""

    name: str
    type: Type
    access: str
    default: object = None
    has_default: bool = False
    computed_from: tuple[str, str] | None = None
    is_removed: bool = False

    @property
    def is_settable(self) -> bool:
        """Whether clients may write it directly."""
        return self.access == "rw"

    @property
    def is_given_at_creation(self) -> bool:
        """Whether the constructor's record carries it."""
        return self.access in ("rw", "new")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a call, the session left out."""

    name: str
    type: Type
    is_required: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a class that is not derived from its fields."""

    name: str
    parameters: tuple[Parameter, ...]
    result: Type
    role: str
    flags: frozenset[str]


@dataclass(slots=True)
class ClassTable:
    """One class: its fields in order, its own calls, and which generic calls it has."""

    name: str
    flags: frozenset[str]
    fields: dict[str, Field] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)

    @property
    def has_objects(self) -> bool:
        """Whether objects of it exist, with a reference each."""
        return "value" not in self.flags


@dataclass(frozen=True, slots=True)
class Datamodel:
    """All classes and enumerations. Shared and never changed after loading."""

    classes: Mapping[str, ClassTable]
    enums: Mapping[str, frozenset[str]]
    relations: Mapping[tuple[str, str], tuple[str, str]]
    """``(class, reference field)`` to ``(class, computed set)`` on the other side."""


@cache
def load_datamodel() -> Datamodel:
    """Return the datamodel; the tables are read once per process."""
    classes: dict[str, ClassTable] = {}
    enums: dict[str, frozenset[str]] = {}
    for name in _TABLES:
        text = resources.files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8")
        _read_table(text, classes, enums)
    relations = {
        spec.computed_from: (table.name, spec.name)
        for table in classes.values()
        for spec in table.fields.values()
        if spec.computed_from and spec.computed_from[1] in classes[spec.computed_from[0]].fields
    }
    return Datamodel(classes, enums, relations)


def _read_table(text: str, classes: dict[str, ClassTable], enums: dict[str, frozenset[str]]) -> None:
    current: ClassTable | None = None
    for columns in _rows(text):
        keyword, name, rest = columns[0], columns[1], columns[2:]
        match keyword:
            case "class":
                assert name not in classes, name
                current = classes[name] = ClassTable(name, frozenset(rest[0].split() if rest else ()))
            case "extend":
                current = classes[name]
            case "enum":
                enums[name] = frozenset(rest[0].split())
            case "field":
                assert current is not None
                current.fields[name] = _read_field(name, rest)
            case "call":
                assert current is not None
                current.calls[name] = _read_call(name, rest)
            case _:
                raise AssertionError(columns)


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield re.split(r"\s{2,}", line.strip())


def _read_field(name: str, columns: list[str]) -> Field:
    spelling, access, *notes = columns
    default: object = None
    has_default = False
    source: tuple[str, str] | None = None
    for note in notes:
        if note.startswith("= "):
            default, has_default = json.loads(note[2:]), True
        elif note.startswith("<- "):
            cls, _, other = note[3:].partition(".")
            source = (cls, other)
    type_ = parse_type(spelling)
    if not has_default:
        default = type_.empty()
    return Field(name, type_, access, type_.restore(default), has_default, source, "removed" in notes)


def _read_call(name: str, columns: list[str]) -> Call:
    parameters, result, role, *flags = columns
    listed = parameters[1:-1]
    return Call(
        name,
        tuple(_read_parameter(text) for text in listed.split(", ")) if listed != "-" else (),
        parse_type(result),
        role,
        frozenset(flags[0].split() if flags else ()),
    )


def _read_parameter(text: str) -> Parameter:
    name, _, spelling = text.partition(" ")
    return Parameter(name.removesuffix("?"), parse_type(spelling), not name.endswith("?"))
