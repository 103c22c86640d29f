"""How results leave the program: tables and sentences for people, one JSON document for programs.

Invariant: with ``--json`` standard output carries exactly one JSON document, whatever happens; everything else goes to
standard error.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TextIO

from rich.console import Console
from rich.table import Table

from holdfast.core import HoldfastError, Secret, format_time

__all__ = ["Output", "plain"]

_FILE_WIDTH = 10_000


def plain(value: object) -> object:
    """Return any of our values as JSON knows it: dataclasses by field, enums by value, bytes as their length."""
    match value:
        case Secret():
            return "***"
        case enum.Enum():
            return value.value
        case datetime():
            return format_time(value)
        case bytes():
            return {"length_bytes": len(value)}
        case str() | int() | float() | bool() | None:
            return value
        case Mapping():
            return {str(plain(key)): plain(each) for key, each in value.items()}
        case Sequence() | set() | frozenset():
            return [plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value)


def _width(stream: TextIO) -> int | None:
    """Return no width for a terminal, which has its own, and one that never breaks a line for files and pipes."""
    return None if stream.isatty() else _FILE_WIDTH


class Output:
    """Where a command writes. ``as_json`` silences everything for people on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.people = Console(file=sys.stdout, highlight=False, quiet=as_json, width=_width(sys.stdout))
        self.aside = Console(file=sys.stderr, highlight=False, width=_width(sys.stderr))

    def gap(self) -> None:
        """Print an empty line for people."""
        self.people.print()

    def say(self, text: str, *, style: str | None = None) -> None:
        """Print a line for people, as it is: no markup, no emoji codes."""
        self.people.print(text, style=style, markup=False, emoji=False)

    def warn(self, text: str) -> None:
        """Print a line on standard error, in both modes."""
        self.aside.print(text, style="yellow", markup=False, emoji=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
        """Print a table; ``empty`` is said instead of nothing.

        Columns named ``>…`` are right-aligned. Those named ``=…`` hold what people copy: they are never broken, others
        give way.
        """
        if not rows:
            self.say(empty)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            name, right, whole = column.lstrip(">="), column.startswith(">"), column.startswith("=")
            table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=whole)
        for row in rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        self.people.print(table)

    def result(self, document: object) -> None:
        """Print the command's one JSON document; nothing in the mode for people."""
        if self.as_json:
            json.dump(plain(document), sys.stdout, indent=2)
            sys.stdout.write("\n")
            sys.stdout.flush()

    def fail(self, error: HoldfastError) -> int:
        """Tell an error in its three parts, as the command's one document with ``--json``; return its exit status."""
        self.tell_error(error)
        self.result(self.error_document(error))
        return int(error.exit_status)

    def tell_error(self, error: HoldfastError) -> None:
        """Tell an error to people; nothing with ``--json``."""
        if not self.as_json:
            self.aside.print(f"Error: {error}", style="bold red", markup=False, emoji=False)
            self.aside.print(f"  Your data: {error.effect}", markup=False, emoji=False)
            self.aside.print(f"  What to do: {error.next_step()}", markup=False, emoji=False)
            self.aside.print(f"  ({error.code})", style="dim", markup=False, emoji=False)

    def error_document(self, error: HoldfastError) -> dict[str, object]:
        """Return an error as JSON knows it."""
        facts = {"message": str(error), "code": error.code, "effect": error.effect, "next_step": error.next_step()}
        return {"error": {**facts, "retry": error.retry, "facts": error.facts()}}
