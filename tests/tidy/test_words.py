"""One word for one thing, nothing left for later, nothing that is true on one machine only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tidy.source import PROJECT, Page, pages, report
from tests.tidy.words import GLOSSARY, forbidden_words, glossary_words, left_for_later, machine_paths, wrong_words

LATER = "TO" + "DO"
FORBIDDEN = {"recovery point": "restore point", "datastore": "repository"}


@pytest.mark.slow(reason="reads the whole tree")
def test_the_project_leaves_nothing_for_later() -> None:
    assert (found := report(each for page in pages() for each in left_for_later(page))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_the_project_names_no_path_of_somebodys_machine() -> None:
    assert (found := report(each for page in pages() for each in machine_paths(page))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_the_project_speaks_with_the_words_of_its_glossary() -> None:
    forbidden = forbidden_words(glossary_words((PROJECT / GLOSSARY).read_text(encoding="utf-8")))
    assert (found := report(each for page in pages() for each in wrong_words(page, forbidden))) == "", found


def test_the_glossary_is_read_and_no_word_is_right_and_wrong_at_once() -> None:
    words = glossary_words((PROJECT / GLOSSARY).read_text(encoding="utf-8"))
    assert {"restore point", "repository", "run", "pool", "VM", "disk"} <= set(words)
    assert not set(words) & set(forbidden_words(words))


@pytest.mark.parametrize("line", [f"# {LATER}: later", "x = 1  # FIX" + "ME"])
def test_a_note_to_ourselves_is_found(line: str) -> None:
    assert len(list(left_for_later(Page(path="src/holdfast/x.py", text=line)))) == 1


@pytest.mark.parametrize("line", ["method", "TODOS are mentioned in no rule", "a hack in lower case is a word"])
def test_ordinary_words_are_no_notes(line: str) -> None:
    assert list(left_for_later(Page(path="docs/x.md", text=line))) == []


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "home/anna/holdfast/x",
        "see /" + "Users/anna/x",
        "open('/build/7/checkout/docs')",
        "cat /build/7/shared/golden",
        "in /build/anna/.cache",
    ],
)
def test_a_path_of_one_machine_is_found(line: str) -> None:
    page = Page(path="docs/x.md", text=line)
    found = machine_paths(page, checkout=Path("/build/7/checkout"), home=Path("/build/anna"))
    assert len(list(found)) == 1


@pytest.mark.parametrize(
    "line", ["/var/lib/holdfast/x", "~/.local/share/holdfast", "$HOME/backups", "/srv/build/7/checkout/"]
)
def test_a_path_that_everybody_can_have_passes(line: str) -> None:
    page = Page(path="docs/x.md", text=line)
    assert list(machine_paths(page, checkout=Path("/build/7/checkout"), home=Path("/root"))) == []


@pytest.mark.parametrize("line", ["Choose a recovery point.", "two Datastores", "- the **datastore**"])
def test_a_synonym_is_found_where_people_read(line: str) -> None:
    assert len(list(wrong_words(Page(path="docs/guide.md", text=line), FORBIDDEN))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("docs/guide.md", "Choose a restore point of the repository."),
        ("docs/guide.md", "Others say `recovery point`."),
        ("docs/guide.md", "```\ndatastore list\n```"),
        (GLOSSARY, "not: datastore"),
        ("src/holdfast/xapi/wire.py", "# a datastore of theirs"),
    ],
)
def test_the_right_word_a_quotation_and_the_wire_pass(path: str, text: str) -> None:
    assert list(wrong_words(Page(path=path, text=text), FORBIDDEN)) == []


def test_glossary_rows_give_the_word_and_what_it_is_not() -> None:
    rows = [
        "| word | meaning | not |",
        "| --- | --- | --- |",
        "| **run** | one | job run, task run |",
        "| pool | hosts | |",
    ]
    text = "\n".join(rows)
    assert glossary_words(text) == {"run": ("job run", "task run"), "pool": ()}
