"""What the tidy rules read: the project's files, each parsed once, and the offences that rules report.

A rule is a function from a ``Module`` (or a ``Page``) to offences, so that it can be shown a bad snippet as easily as
the whole tree. Invariant: a rule never looks at the disk on its own when a snippet can tell it the same.
"""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "PROJECT",
    "Module",
    "Offence",
    "Page",
    "modules",
    "pages",
    "project_files",
    "report",
    "snippet",
]

PROJECT = Path(__file__).resolve().parents[2]
_TEXT_SUFFIXES = {
    "", ".cfg", ".conf", ".css", ".html", ".ini", ".js", ".json", ".md", ".py", ".service", ".sh", ".sql", ".timer",
    ".toml", ".ts", ".txt", ".vue", ".yaml", ".yml",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """One place that breaks one rule, said so that the reader knows what to do."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Module:
    """One Python file, parsed."""

    path: str
    """Relative to the project, with slashes, e.g. ``src/holdfast/core/clock.py``."""
    text: str
    tree: ast.Module

    @property
    def is_product(self) -> bool:
        """Whether it ships, rather than tests or measures what ships."""
        return self.path.startswith("src/")

    @property
    def is_door(self) -> bool:
        """Whether it is a package's front door."""
        return self.path.endswith("/__init__.py")

    @property
    def dotted(self) -> str:
        """Its import name, e.g. ``holdfast.core.clock``; of a front door, the package's name."""
        return self.path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @functools.cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of its tree, walked once for all rules."""
        return tuple(ast.walk(self.tree))

    def offence(self, node: ast.AST | int, what: str) -> Offence:
        """Return an offence at a node or a line of this file."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return Offence(path=self.path, line=line, what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One text file that people read."""

    path: str
    text: str

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield its lines with their numbers, from 1."""
        yield from enumerate(self.text.splitlines(), start=1)

    def offence(self, line: int, what: str) -> Offence:
        """Return an offence at a line of this page."""
        return Offence(path=self.path, line=line, what=what)


def snippet(text: str, *, path: str = "src/holdfast/backup/sample.py") -> Module:
    """Return a module that exists only in a test."""
    return Module(path=path, text=text, tree=ast.parse(text))


def report(offences: Iterable[Offence]) -> str:
    """Return the offences as one message, a line each; empty when there are none."""
    return "".join(f"\n{each}" for each in sorted(offences, key=lambda each: (each.path, each.line, each.what)))


@functools.cache
def project_files() -> tuple[str, ...]:
    """Return every file that belongs to the project: what git tracks or would add, else what lies in its folders."""
    asked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )
    if asked.returncode == 0:
        names = asked.stdout.decode().split("\0")
    else:
        folders = ("src", "tests", "bench", "docs", "changelog.d", ".ci")
        names = [str(each.relative_to(PROJECT)) for folder in folders for each in (PROJECT / folder).rglob("*")]
    files = {name for name in names if name and "__pycache__" not in name and (PROJECT / name).is_file()}
    return tuple(sorted(files))


@functools.cache
def modules() -> tuple[Module, ...]:
    """Return every Python file of the project."""
    return tuple(_read_module(name) for name in project_files() if name.endswith(".py"))


@functools.cache
def pages() -> tuple[Page, ...]:
    """Return every text file of the project, Python included."""
    found = []
    for name in project_files():
        if Path(name).suffix in _TEXT_SUFFIXES:
            found.append(Page(path=name, text=(PROJECT / name).read_text(encoding="utf-8", errors="surrogateescape")))
    return tuple(found)


def _read_module(name: str) -> Module:
    text = (PROJECT / name).read_text(encoding="utf-8")
    return Module(path=name, text=text, tree=ast.parse(text, filename=name))
