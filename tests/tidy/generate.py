"""Writes the pages that are made from the program: ``python -m tests.tidy.generate``, or ``./dev docs``.

These are the lists of errors, of the lab's faults and of the calls it leaves out, and the pages with dumps of frozen
bytes, which a module ``pages`` beside those bytes names. With ``--check`` nothing is written, and the exit status says
whether every page is up to date.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable

import tests.golden
from holdfast.lab import FAULT_AREAS, unanswered_calls
from tests.tidy.errors import ERRORS_PAGE, error_classes, errors_page
from tests.tidy.faults import FAULTS_PAGE, faults_page
from tests.tidy.left_out import LEFT_OUT_PAGE, left_out_page
from tests.tidy.source import PROJECT

__all__ = ["main", "makers", "stale_pages"]


def makers() -> dict[str, Callable[[], str]]:
    """Return each generated page, by its path in the project, with what makes its text."""
    found: dict[str, Callable[[], str]] = {
        ERRORS_PAGE: lambda: errors_page(error_classes()),
        FAULTS_PAGE: lambda: faults_page(FAULT_AREAS),
        LEFT_OUT_PAGE: lambda: left_out_page(unanswered_calls()),
    }
    for module in pkgutil.walk_packages(tests.golden.__path__, prefix="tests.golden."):
        if module.name.endswith(".pages"):
            found.update(importlib.import_module(module.name).PAGES)
    return found


def stale_pages() -> dict[str, str]:
    """Return each generated page whose file differs from what the program says, with the text it should have."""
    stale = {}
    for path, make in makers().items():
        file, text = PROJECT / path, make()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale[path] = text
    return stale


def main(arguments: list[str]) -> int:
    """Write the stale pages, or only name them; return the exit status."""
    stale = stale_pages()
    check = arguments == ["--check"]
    for path, text in stale.items():
        print(f"{'stale' if check else 'written'}: {path}")
        if not check:
            (PROJECT / path).parent.mkdir(parents=True, exist_ok=True)
            (PROJECT / path).write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
