"""Rules on words: one word for one thing, nothing left for later, nothing that is true on one machine only.

The glossary's last column lists what a thing is not called; this rule reads it there, so the page is the law.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.tidy.source import PROJECT, Offence, Page

__all__ = ["GLOSSARY", "forbidden_words", "glossary_words", "left_for_later", "machine_paths", "wrong_words"]

GLOSSARY = "docs/glossary.md"

_SPOKEN = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/", "changelog.d/", "src/holdfast/cli/")
"""Where people read us. In wire code XAPI's own words stand."""

_LATER = re.compile(r"\b(TO[D]O|FIXM[E]|XX[X]|HAC[K])\b")
_HOMES = re.compile(r"(?<![\w.$}])/(?:home|Users)/[A-Za-z][\w.-]{2,}/")
_TABLE_ROW = re.compile(r"^\|(?P<cells>.+)\|\s*$")
_CODE = re.compile(r"`[^`]*`")


def left_for_later(page: Page) -> Iterator[Offence]:
    """Yield notes to ourselves. What is not done is an issue, or a sentence in the documents."""
    for number, line in page.lines():
        if found := _LATER.search(line):
            yield page.offence(number, f"{found.group()}: do it now, or open an issue and say here what holds today")


def machine_paths(page: Page, *, checkout: Path = PROJECT, home: Path | None = None) -> Iterator[Offence]:
    """Yield paths that exist on somebody's machine only: a home folder, or where this checkout happens to lie."""
    own = [f"{folder}/" for folder in (checkout, home or Path.home()) if len(folder.parts) > 2]
    if len(checkout.parts) > 2:
        own.append(f"{checkout.parent}/shared")
    for number, line in page.lines():
        if found := _HOMES.search(line):
            yield page.offence(number, f"{found.group()} exists on one machine only")
        for path in own:
            if re.search(rf"(?<![\w.]){re.escape(path)}", line):
                yield page.offence(number, f"{path} exists on one machine only")


def glossary_words(text: str) -> dict[str, tuple[str, ...]]:
    """Return each word of the glossary's tables with what it must not be called."""
    words: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        row = _TABLE_ROW.match(line)
        cells = [each.strip() for each in row["cells"].split("|")] if row else []
        if len(cells) == 3 and cells[0] != "word" and not set(cells[0]) <= {"-", " ", ":"}:
            words[cells[0].strip("*")] = tuple(each.strip() for each in cells[2].split(",") if each.strip(" -–"))
    return words


def forbidden_words(words: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return each wrong word with the right one."""
    return {wrong: right for right, wrongs in words.items() for wrong in wrongs}


def wrong_words(page: Page, forbidden: Mapping[str, str]) -> Iterator[Offence]:
    """Yield words that the glossary replaces, in what people read. Code spans quote others and are left alone."""
    if page.path == GLOSSARY or not page.path.startswith(_SPOKEN) or not forbidden:
        return
    pattern = re.compile(
        r"\b(" + "|".join(sorted(map(re.escape, forbidden), key=len, reverse=True)) + r")s?\b", re.IGNORECASE
    )
    fenced = False
    for number, line in page.lines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if fenced:
            continue
        for found in pattern.finditer(_CODE.sub("", line)):
            right = forbidden[next(each for each in forbidden if each.lower() == found.group(1).lower())]
            yield page.offence(number, f"“{found.group()}” is called “{right}” here (docs/glossary.md)")
