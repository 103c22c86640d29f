"""Every command that a document shows is one that the command line takes, and every command shows an example."""

from __future__ import annotations

import pytest
from cyclopts import App

from tests.tidy.commands import examples_of, shown_commands, unknown_commands
from tests.tidy.source import Page, pages, report


@pytest.fixture(scope="module")
def product() -> App:
    from holdfast.cli.main import app

    return app


@pytest.mark.slow(reason="imports the whole product, once")
def test_every_command_in_the_documents_is_taken(product: App) -> None:
    documents = [page for page in pages() if page.path.endswith(".md")]
    assert (found := report(each for page in documents for each in unknown_commands(page, product))) == "", found


@pytest.mark.slow(reason="imports the whole product, once")
def test_every_command_has_an_example_that_it_takes(product: App) -> None:
    helps = list(examples_of(product))
    assert helps
    assert [each.path for each in helps if not each.text] == []
    assert (found := report(each for page in helps for each in unknown_commands(page, product))) == "", found


@pytest.fixture
def sample() -> App:
    app, pool = App(name="holdfast"), App(name="pool")
    app.command(pool)

    @pool.command
    def add(name: str, *, user: str = "root") -> None:
        """Remember a pool.

        Example: holdfast pool add prod
        """

    @pool.command
    def show(name: str) -> None:
        """Show a pool."""

    return app


def _page(text: str) -> Page:
    return Page(path="docs/page.md", text=text)


@pytest.mark.parametrize(
    "text",
    [
        "```\nholdfast pool add prod\n```",
        "```\n$ holdfast pool add prod --user backup   # comment\n```",
        "```\nsudo -u holdfast env A=1 holdfast pool add prod  # see holdfast --help\n```",
        "```\nExecStart=-/usr/local/bin/holdfast pool add prod\n```",
        "Then `holdfast pool add` asks; see 'holdfast pool'.",
        "Holdfast pool adders are no command.",
    ],
)
def test_a_command_that_exists_passes(text: str, sample: App) -> None:
    assert list(unknown_commands(_page(text), sample)) == []


@pytest.mark.parametrize(
    "text",
    [
        "```\nholdfast pool ad prod\n```",
        "```\nholdfast pool add\n```",
        "```\nholdfast pool add prod --usr x\n```",
        "```\nholdfast pool add 'prod\n```",
        "Then `holdfast pools add` asks.",
        "See 'holdfast pool add --gone'.",
    ],
)
def test_a_command_that_does_not_exist_is_found_once(text: str, sample: App) -> None:
    assert len(list(unknown_commands(_page(text), sample))) == 1


def test_commands_are_told_from_output_and_prose() -> None:
    text = "Use holdfast pool often.\n```\nHoldfast 0.1.0\nholdfast pool list\n```\n`holdfast run list`\n"
    assert [(each.line, each.text, each.is_whole) for each in shown_commands(_page(text))] == [
        (4, "pool list", True),
        (6, "run list", False),
    ]


def test_examples_are_read_from_the_help_of_every_command(sample: App) -> None:
    assert {each.path: bool(each.text) for each in examples_of(sample)} == {
        "holdfast pool add --help": True,
        "holdfast pool show --help": False,
    }
