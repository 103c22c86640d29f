"""Writes the pages that are made from the program: ``python -m tests.tidy.generate``, or ``./dev docs``.

With ``--check`` nothing is written, and the exit status says whether every page is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from tests.tidy.errors import ERRORS_PAGE, error_classes, errors_page
from tests.tidy.source import PROJECT

__all__ = ["PAGES", "main", "stale_pages"]

PAGES: Mapping[str, Callable[[], str]] = {
    ERRORS_PAGE: lambda: errors_page(error_classes()),
}


def stale_pages() -> dict[str, str]:
    """Return each generated page whose file differs from what the program says, with the text it should have."""
    stale = {}
    for path, make in PAGES.items():
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
