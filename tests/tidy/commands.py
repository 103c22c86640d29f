"""Rules on commands that documents show: each is parsed by the command line itself, so a page cannot promise an option
that does not exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from cyclopts import App, CycloptsError
from cyclopts.exceptions import MissingArgumentError

from tests.tidy.source import Offence, Page

__all__ = ["ShownCommand", "examples_of", "shown_commands", "unknown_commands"]

_IN_BLOCK = re.compile(r"(?:^|.*[\s/=-])holdfast (?P<rest>[a-z].*)$")
_IN_PROSE = re.compile(r"(?P<quote>[`'])holdfast (?P<rest>[a-z][^`']*)(?P=quote)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCommand:
    """A command as a page shows it, without the program's name. In prose it may leave its arguments out."""

    line: int
    text: str
    is_whole: bool


def shown_commands(page: Page) -> Iterator[ShownCommand]:
    """Yield the commands in a page: whole ones from code blocks, mentioned ones from prose."""
    fenced = False
    for number, line in page.lines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            if found := _IN_BLOCK.match(line.partition(" #")[0].rstrip()):
                yield ShownCommand(line=number, text=found["rest"], is_whole=True)
        else:
            for found in _IN_PROSE.finditer(line):
                yield ShownCommand(line=number, text=found["rest"], is_whole=False)


def examples_of(app: App, *, name: str = "holdfast") -> Iterator[Page]:
    """Yield the help text of every command below ``app`` as a page, its example in a code block."""
    for command in app:
        if command.startswith("-"):
            continue
        inner = app[command]
        if inner.default_command is not None:
            said = inner.default_command.__doc__ or ""
            block = "".join(f"```\n{line}\n```\n" for line in re.findall(r"Example: (holdfast .*)", said))
            yield Page(path=f"{name} {command} --help", text=block)
        yield from examples_of(inner, name=f"{name} {command}")


def unknown_commands(page: Page, app: App) -> Iterator[Offence]:
    """Yield commands that the command line would refuse."""
    for command in shown_commands(page):
        try:
            tokens = shlex.split(command.text)
            app.parse_args(tokens, print_error=False, exit_on_error=False)
        except MissingArgumentError as cause:
            if command.is_whole:
                yield page.offence(command.line, f"holdfast {command.text}: {_first_line(cause)}")
        except (CycloptsError, ValueError) as cause:
            yield page.offence(command.line, f"holdfast {command.text}: {_first_line(cause)}")


def _first_line(cause: Exception) -> str:
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
