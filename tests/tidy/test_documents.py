"""Links lead somewhere, formats have their page, changelog fragments have one shape, clones stay small."""

from __future__ import annotations

import pytest

from tests.tidy.documents import (
    anchors_of,
    broken_links,
    decisions_out_of_order,
    heavy_files,
    incomplete_formats,
    misshapen_fragments,
    unadmitted_dependencies,
    unplaced_packages,
    unreachable_pages,
)
from tests.tidy.source import PROJECT, Page, pages, project_files, report

OTHER = "# Title\n\n## Exit statuses\n\n## The `run` verb\n\n## Exit statuses\n"


def _offences(text: str, *, path: str = "docs/page.md") -> int:
    files = {"docs/other.md": OTHER, "docs/page.md": text, "README.md": ""}
    page = Page(path=path, text=text)
    return len(list(broken_links(page, exists=files.__contains__, read=files.__getitem__)))


@pytest.mark.slow(reason="reads the whole tree")
def test_every_link_inside_the_project_leads_somewhere() -> None:
    def exists(path: str) -> bool:
        return (PROJECT / path).exists()

    def read(path: str) -> str:
        return (PROJECT / path).read_text(encoding="utf-8")

    found = [
        each for page in pages() if page.path.endswith(".md") for each in broken_links(page, exists=exists, read=read)
    ]
    assert found == [], report(found)


@pytest.mark.slow(reason="reads the whole tree")
def test_every_document_is_reached_from_the_readme() -> None:
    assert (found := report(unreachable_pages(pages()))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_every_format_has_its_three_files_and_its_page() -> None:
    assert (found := report(incomplete_formats(project_files()))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_every_changelog_fragment_has_the_shape() -> None:
    assert (found := report(each for page in pages() for each in misshapen_fragments(page))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_decisions_are_numbered_without_gaps_and_complete() -> None:
    assert (found := report(decisions_out_of_order(pages()))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_every_dependency_was_admitted_by_a_decision() -> None:
    project = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    assert (found := report(unadmitted_dependencies(project, pages()))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_every_package_has_its_layer_and_its_line_in_the_architecture() -> None:
    project, architecture = ((PROJECT / path).read_text() for path in ("pyproject.toml", "docs/architecture.md"))
    found = report(unplaced_packages(project_files(), project=project, architecture=architecture))
    assert found == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_no_file_weighs_on_every_clone() -> None:
    found = report(heavy_files(project_files(), length_bytes=lambda path: (PROJECT / path).stat().st_size))
    assert found == "", found


@pytest.mark.parametrize(
    "text",
    ["[a](gone.md)", "[a](other.md#gone)", "[a](../../outside.md)", "![p](gone.png)", "[a](#gone)", "[`x`](gone.md)"],
)
def test_a_link_that_leads_nowhere_is_found(text: str) -> None:
    assert _offences(text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md)",
        "[a](other.md#exit-statuses) [b](other.md#exit-statuses-1) [c](other.md#the-run-verb)",
        "[a](../README.md)",
        "[a](https://example.org/x) [b](mailto:a@example.org)",
        "# Here\n[a](#here)",
        "`[a](gone.md)`",
        "```\n[a](gone.md)\n```",
    ],
)
def test_a_link_that_leads_somewhere_passes(text: str) -> None:
    assert _offences(text) == 0


def test_headings_inside_code_are_no_anchors() -> None:
    assert anchors_of("```\n# comment\n```\n# Real one!") == {"real-one"}


def test_a_format_without_a_part_is_found() -> None:
    files = {
        "src/holdfast/formats/qcow2/layout.py",
        "src/holdfast/formats/qcow2/read.py",
        "src/holdfast/formats/__init__.py",
    }
    assert sorted(each.path for each in incomplete_formats(files)) == [
        "docs/formats/qcow2.md",
        "src/holdfast/formats/qcow2/write.py",
    ]


GOOD_FRAGMENT = "Added: restore of a VM\n\nNothing could be restored.\n\n`holdfast restore vm` restores.\n"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("changelog.d/restore.md", "Restore of a VM\n\nIt was so.\n\nIt is so.\n"),
        ("changelog.d/restore.md", "New: restore of a VM\n\nIt was so.\n\nIt is so.\n"),
        ("changelog.d/restore.md", "Added: restore of a VM.\n\nIt was so.\n\nIt is so.\n"),
        ("changelog.d/restore.md", "Added: restore of a VM\n\nIt is so.\n"),
        ("changelog.d/restore.md", f"Added: {'x' * 90}\n\nIt was so.\n\nIt is so.\n"),
        ("changelog.d/Restore_VM.md", GOOD_FRAGMENT),
        ("changelog.d/restore.txt", GOOD_FRAGMENT),
    ],
)
def test_a_misshapen_fragment_is_found(path: str, text: str) -> None:
    assert len(list(misshapen_fragments(Page(path=path, text=text)))) == 1


@pytest.mark.parametrize("path", ["changelog.d/restore-vm.md", "changelog.d/README.md", "docs/changelog.md"])
def test_a_fragment_in_shape_and_everything_else_pass(path: str) -> None:
    assert list(misshapen_fragments(Page(path=path, text=GOOD_FRAGMENT))) == []


def _decision(name: str, *, parts: str = "## Context\n## Options\n## Choice\n## What would change it\n") -> Page:
    return Page(path=f"docs/decisions/{name}", text=parts)


def test_a_decision_without_number_part_or_predecessor_is_found() -> None:
    assert len(list(decisions_out_of_order([_decision("0001-a.md"), _decision("0001-b.md")]))) == 1
    assert len(list(decisions_out_of_order([_decision("0001-a.md"), _decision("0003-b.md")]))) == 1
    assert len(list(decisions_out_of_order([_decision("first.md")]))) == 1
    assert len(list(decisions_out_of_order([_decision("0001-a.md", parts="## Context\n## Options\n## Choice\n")]))) == 1


def test_decisions_in_order_pass() -> None:
    readme = Page(path="docs/decisions/README.md", text="")
    assert list(decisions_out_of_order([readme, _decision("0001-a.md"), _decision("0002-b.md")])) == []


def test_a_heavy_file_is_found() -> None:
    sizes = {"a.bin": 1_000_001, "b.bin": 1_000_000}
    assert [each.path for each in heavy_files(sizes, length_bytes=sizes.__getitem__)] == ["a.bin"]


def test_a_dependency_without_a_decision_is_found() -> None:
    project = '[project]\ndependencies = ["Known>=1,<2", "left-pad>=1"]\n[dependency-groups]\ndev = ["pytest"]\n'
    decision = Page(path="docs/decisions/0001-a.md", text="| **known** | ... | **pytest** |")
    (offence,) = unadmitted_dependencies(project, [decision, Page(path="docs/x.md", text="**left-pad**")])
    assert "**left-pad**" in offence.what


def test_a_package_without_a_place_is_found() -> None:
    project = '[[tool.importlinter.contracts]]\nlayers = ["holdfast.cli", "holdfast.core | holdfast.model"]\n'
    files = [f"src/holdfast/{name}/__init__.py" for name in ("cli", "core", "model", "extra")]
    found = list(unplaced_packages(files, project=project, architecture="cli, core and model"))
    assert [each.path for each in found] == ["pyproject.toml", "docs/architecture.md"]


def test_a_document_that_nobody_links_to_is_found() -> None:
    linked = [Page(path="README.md", text="[a](docs/a.md#x)"), Page(path="docs/a.md", text="[b](sub/b.md)")]
    leaves = [Page(path="docs/sub/b.md", text="[up](../a.md)"), Page(path="docs/c.md", text="[a](a.md)")]
    assert [each.path for each in unreachable_pages([*linked, *leaves])] == ["docs/c.md"]
