"""Rules on documents: links lead somewhere, formats have a page, fragments and decisions have one shape."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from tests.tidy.source import PROJECT, Offence, Page

__all__ = [
    "BLOB_BYTES_MAX",
    "CHANGE_KINDS",
    "anchors_of",
    "broken_links",
    "decisions_out_of_order",
    "heavy_files",
    "incomplete_formats",
    "misshapen_fragments",
    "unadmitted_dependencies",
    "unplaced_packages",
    "unreachable_pages",
]

BLOB_BYTES_MAX = 1_000_000
CHANGE_KINDS = ("Added", "Changed", "Fixed", "Removed", "Security")

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6}\s+(?P<title>.+?)\s*#*$")
_ENTRY = re.compile(r"(?P<kind>\w+): (?P<subject>\S.*[^.\s])")
_DECISION = re.compile(r"docs/decisions/(?P<number>\d{4})-[a-z0-9-]+\.md")
_DECISION_PARTS = ("## Context", "## Options", "## Choice", "## What would change it")


def broken_links(page: Page, *, exists: Callable[[str], bool], read: Callable[[str], str]) -> Iterator[Offence]:
    """Yield links inside the project that lead to no file, or to no heading of it."""
    for number, line in _prose(page):
        for found in _LINK.finditer(line):
            target = found.group(1) or found.group(2)
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            path = page.path if not name else _resolve(page.path, name)
            if path is None or not exists(path):
                yield page.offence(number, f"{target} leads nowhere")
            elif anchor and path.endswith(".md") and anchor not in anchors_of(read(path)):
                yield page.offence(number, f"{target}: {path} has no such heading")


def unreachable_pages(pages: Collection[Page], *, start: str = "README.md") -> Iterator[Offence]:
    """Yield documents that no chain of links leads to: nobody finds them."""
    by_path = {page.path: page for page in pages if page.path.endswith(".md")}
    reached, waiting = {start}, [start]
    while waiting:
        for target in _links(by_path[waiting.pop()]) & set(by_path) - reached:
            reached.add(target)
            waiting.append(target)
    for path in sorted(set(by_path) - reached):
        if path.startswith("docs/"):
            yield Offence(path=path, line=1, what=f"no chain of links from {start} leads here")


def _links(page: Page) -> set[str]:
    """Return the project paths that a page links to."""
    names = {
        (found.group(1) or found.group(2)).partition("#")[0]
        for _, line in _prose(page)
        for found in _LINK.finditer(line)
    }
    resolved = {_resolve(page.path, name) for name in names if name and not re.match(r"[a-z][a-z0-9+.-]*:", name)}
    return {each for each in resolved if each is not None}


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and most site builders form them."""
    anchors: set[str] = set()
    for _, line in _prose(Page(path="", text=text)):
        if found := _HEADING.match(line):
            title = re.sub(r"[^\w\s-]", "", found["title"].lower()).strip().replace(" ", "-")
            count = 0
            anchor = title
            while anchor in anchors:
                count += 1
                anchor = f"{title}-{count}"
            anchors.add(anchor)
    return anchors


def incomplete_formats(files: Collection[str]) -> Iterator[Offence]:
    """Yield formats without one of their three files or without their page."""
    names = {found.group(1) for each in files if (found := re.match(r"src/holdfast/formats/(\w+)/", each))}
    for name in sorted(names):
        wanted = [f"src/holdfast/formats/{name}/{part}.py" for part in ("layout", "read", "write")]
        for path in [*wanted, f"docs/formats/{name}.md"]:
            if path not in files:
                yield Offence(
                    path=path, line=1, what=f"missing: a format has layout.py, read.py, write.py and a page ({name})"
                )


def misshapen_fragments(page: Page) -> Iterator[Offence]:
    """Yield changelog fragments that do not name the change and tell the problem, then the behaviour."""
    if not re.fullmatch(r"changelog\.d/[^/]+", page.path) or page.path == "changelog.d/README.md":
        return
    if not re.fullmatch(r"changelog\.d/[a-z0-9]+(-[a-z0-9]+)*\.md", page.path):
        yield page.offence(1, "a fragment is named changelog.d/<topic>.md, in lower case with hyphens")
    first, _, rest = page.text.partition("\n")
    found = _ENTRY.fullmatch(first)
    if found is None or found["kind"] not in CHANGE_KINDS or len(first) > 90:
        yield page.offence(
            1, f"the first line reads 'Kind: subject', at most 90 characters, Kind one of {CHANGE_KINDS}"
        )
    if len([each for each in rest.split("\n\n") if each.strip()]) < 2 or not rest.startswith("\n"):
        yield page.offence(2, "then two paragraphs: the problem in the past tense, the behaviour in the present")


def decisions_out_of_order(pages: Collection[Page]) -> Iterator[Offence]:
    """Yield decisions that share a number, leave a gap, or lack one of their parts."""
    seen: dict[int, str] = {}
    for page in sorted(pages, key=lambda each: each.path):
        if not page.path.startswith("docs/decisions/") or page.path.endswith("/README.md"):
            continue
        found = _DECISION.fullmatch(page.path)
        if found is None:
            yield page.offence(1, "a decision is named docs/decisions/NNNN-title.md")
            continue
        number = int(found["number"])
        if number in seen:
            yield page.offence(1, f"{number:04} is taken by {seen[number]}")
        seen[number] = page.path
        for part in _DECISION_PARTS:
            if part not in page.text.splitlines():
                yield page.offence(1, f"a decision has a part “{part}”")
    for number in sorted(set(range(1, len(seen) + 1)) - set(seen)):
        yield Offence(path="docs/decisions", line=1, what=f"there is no decision {number:04}: numbers leave no gap")


def unadmitted_dependencies(project: str, pages: Collection[Page]) -> Iterator[Offence]:
    """Yield dependencies of ``pyproject.toml`` that no decision admits by their name in bold."""
    settings = tomllib.loads(project)
    wanted = [*settings["project"]["dependencies"]]
    for group in settings.get("dependency-groups", {}).values():
        wanted += group
    decisions = "".join(page.text for page in pages if page.path.startswith("docs/decisions/")).lower()
    for requirement in wanted:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if f"**{name.lower()}**" not in decisions:
            yield Offence(path="pyproject.toml", line=1, what=f"no page in docs/decisions admits **{name}**")


def unplaced_packages(files: Collection[str], *, project: str, architecture: str) -> Iterator[Offence]:
    """Yield packages of the product that the layer contract or the architecture page does not place."""
    contracts = tomllib.loads(project)["tool"]["importlinter"]["contracts"]
    layers = {
        name.strip() for contract in contracts for layer in contract.get("layers", []) for name in layer.split("|")
    }
    names = {found.group(1) for each in files if (found := re.match(r"src/holdfast/(\w+)/__init__\.py", each))}
    for name in sorted(names):
        if f"holdfast.{name}" not in layers:
            yield Offence(path="pyproject.toml", line=1, what=f"holdfast.{name} is in no layer of the contract")
        if not re.search(rf"\b{name}\b", architecture):
            yield Offence(path="docs/architecture.md", line=1, what=f"does not say what {name} is for")


def heavy_files(files: Collection[str], *, length_bytes: Callable[[str], int]) -> Iterator[Offence]:
    """Yield files that weigh on every clone for ever."""
    for path in sorted(files):
        if length_bytes(path) > BLOB_BYTES_MAX:
            yield Offence(
                path=path, line=1, what=f"above {BLOB_BYTES_MAX:,} bytes: make it in a test, or keep it elsewhere"
            )


def _prose(page: Page) -> Iterator[tuple[int, str]]:
    """Yield the lines outside fenced blocks, code spans blanked."""
    fenced = False
    for number, line in page.lines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line if line.startswith("#") else re.sub(r"`[^`]*`", "", line)


def _resolve(page: str, name: str) -> str | None:
    """Return the project path a relative link leads to; None when it leaves the project."""
    path = Path(PROJECT / PurePosixPath(page).parent / name).resolve()
    return path.relative_to(PROJECT).as_posix() if path.is_relative_to(PROJECT) else None
