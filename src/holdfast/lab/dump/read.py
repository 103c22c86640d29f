"""Reads a dump as it arrives. Invariant: what is kept is bounded by the document's own length, entities included."""

from __future__ import annotations

import xml.parsers.expat
from dataclasses import dataclass, field

from holdfast.lab.columns import SpellingInvalid, column_of, parse
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import Datamodel
from holdfast.lab.dump.layout import EMPTY_TABLES, HIDDEN_COLUMNS, SCHEMA_MAJOR, SCHEMA_MINOR, unprotect
from holdfast.lab.errors import quoted
from holdfast.lab.rpc import position_text

__all__ = ["Dump", "DumpMalformed", "DumpReader"]

_TAGS = frozenset({"database", "manifest", "pair", "row", "table"})
_OWN_ATTRIBUTES = frozenset({"ref", "__ctime", "__mtime", "_ref"})


class DumpMalformed(Exception):
    """The document is no dump; the text is the exception that a pool prints."""


@dataclass(slots=True)
class Dump:
    """What a dump holds: its version, and the fields of every row by class and reference."""

    manifest: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, Fields]] = field(default_factory=dict)

    @property
    def is_compatible(self) -> bool:
        """Whether it was written by a pool of our own version."""
        found = (self.manifest.get("schema_major_vsn"), self.manifest.get("schema_minor_vsn"))
        return found == (str(SCHEMA_MAJOR), str(SCHEMA_MINOR))


class DumpReader:
    """Takes the document in pieces and gives the dump at its end. ``DumpMalformed`` at any of both."""

    def __init__(self, datamodel: Datamodel) -> None:
        self._datamodel = datamodel
        self._dump = Dump()
        self._table: dict[str, Fields] = {}
        self._name = ""
        self._columns: dict[str, str] = {}
        self._parser = xml.parsers.expat.ParserCreate()
        self._parser.StartElementHandler = self._open
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype

    def feed(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next piece."""
        self._parse(bytes(piece), is_last=False)

    def finish(self) -> Dump:
        """Return the dump when all of it was fed."""
        self._parse(b"", is_last=True)
        for key in ("generation_count", "schema_major_vsn", "schema_minor_vsn"):
            if key not in self._dump.manifest:
                raise DumpMalformed("Not_found")
            if not self._dump.manifest[key].lstrip("-").isdigit():
                kind = "Int64" if key == "generation_count" else "int"
                raise DumpMalformed(f"Failure({quoted('Int64.of_string' if kind == 'Int64' else 'int_of_string')})")
        return self._dump

    def _parse(self, piece: bytes, *, is_last: bool) -> None:
        try:
            self._parser.Parse(piece, is_last)
        except xml.parsers.expat.ExpatError as cause:
            end = (self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber)
            raise DumpMalformed(position_text(cause, end=end)) from cause

    @staticmethod
    def _refuse_doctype(*_: object) -> None:
        raise DumpMalformed('Xmlm.Error(1:1, "illegal document type")')

    def _open(self, tag: str, attributes: dict[str, str]) -> None:
        if tag not in _TAGS or (tag == "table" and set(attributes) != {"name"}):
            raise _unmarshal_error(f"Unexpected tag: {tag}")
        match tag:
            case "table":
                self._begin_table(attributes["name"])
            case "row":
                self._add_row(attributes)
            case "pair":
                if set(attributes) != {"key", "value"}:
                    raise _unmarshal_error("Unexpected tag: pair")
                self._dump.manifest[attributes["key"]] = attributes["value"]
            case _:
                pass  # the frame around the tables

    def _begin_table(self, name: str) -> None:
        self._name = name
        self._table = {}
        known = self._datamodel.classes.get(name)
        self._columns = {} if known is None else {column_of(each, cls=name): each for each in known.fields}
        if known is not None and name not in EMPTY_TABLES:
            self._dump.tables[name] = self._table

    def _add_row(self, attributes: dict[str, str]) -> None:
        if "ref" not in attributes:
            raise _unmarshal_error("Row does not have ref attribute")
        known = self._datamodel.classes.get(self._name)
        if known is None:
            raise DumpMalformed(f'Db_exn.DBCache_NotFound("missing table", {quoted(self._name)}, "")')
        hidden = HIDDEN_COLUMNS.get(self._name, {})
        fields: Fields = {name: spec.default for name, spec in known.fields.items()}
        for column, text in attributes.items():
            name = self._columns.get(column)
            if name is not None:
                try:
                    fields[name] = parse(unprotect(text), known.fields[name].type)
                except SpellingInvalid as cause:
                    raise DumpMalformed(f"Failure({quoted(str(cause))})") from cause
            elif column not in hidden and column not in _OWN_ATTRIBUTES:
                raise _unmarshal_error(f"Unexpected column in table {self._name}: {column}")
        self._table[attributes["ref"]] = fields


def _unmarshal_error(text: str) -> DumpMalformed:
    return DumpMalformed(f"Xapi_database.Db_xml.Unmarshall_error({quoted(text)})")
