"""Writes a dump. Invariant: a dump shows one moment of the database, whatever changes while it is being sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from xml.sax.saxutils import escape

from holdfast.lab.columns import column_of, spell
from holdfast.lab.database import Database, Row
from holdfast.lab.dump.layout import EMPTY_TABLES, HIDDEN_COLUMNS, SCHEMA_MAJOR, SCHEMA_MINOR, protect

__all__ = ["write_dump"]

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML cannot carry."""

_TABLES_WITHOUT_CLASS = ("Diagnostics",)

RecordOf = Callable[[str, Row], dict[str, object]]


def write_dump(db: Database, record_of: RecordOf) -> Iterator[bytes]:
    """Yield the document table by table; ``record_of`` gives a row's fields, computed ones included."""
    with db.lock:
        generation = db.generation
        tables = {
            cls: [] if cls in EMPTY_TABLES else [(row, record_of(cls, row)) for row in db.rows(cls)]
            for cls in db.datamodel.classes
        }
    pairs = {
        "schema_major_vsn": SCHEMA_MAJOR,
        "schema_minor_vsn": SCHEMA_MINOR,
        "generation_count": generation,
    }
    manifest = "".join(f'<pair key="{key}" value="{value}"/>' for key, value in pairs.items())
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<database><manifest>{manifest}</manifest>'.encode()
    for name in sorted({*tables, *_TABLES_WITHOUT_CLASS}):
        rows = tables.get(name, [])
        if rows:
            body = "".join(_row(name, row, record) for row, record in rows)
            yield f'<table name="{name}">{body}</table>'.encode()
        else:
            yield f'<table name="{name}"/>'.encode()
    yield b"</database>"


def _row(cls: str, row: Row, record: dict[str, object]) -> str:
    columns = {column_of(name, cls=cls): spell(value) for name, value in record.items()}
    columns |= {"_ref": row.ref, **HIDDEN_COLUMNS.get(cls, {})}
    if cls == "PIF":
        columns["device_name"] = columns["device"]
    attributes = {"ref": row.ref, "__ctime": str(row.created), "__mtime": str(row.modified)}
    attributes |= {name: protect(columns[name]) for name in sorted(columns)}
    return "<row " + " ".join(f'{name}="{_escaped(value)}"' for name, value in attributes.items()) + "/>"


def _escaped(text: str) -> str:
    return escape(_UNFIT.sub("", text), {'"': "&quot;"})
