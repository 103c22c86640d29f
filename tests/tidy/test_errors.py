"""Every error tells what happened, what it means for the data and what to do; the page says what the classes say."""

from __future__ import annotations

import pytest

from holdfast.core import ExitStatus, HoldfastError, Retry
from tests.tidy.errors import EXIT_MEANINGS, error_classes, errors_page, steps_of, unclear_errors
from tests.tidy.generate import makers, stale_pages
from tests.tidy.source import report


class _Clear(HoldfastError):
    """A disk is held by somebody else."""

    code = "sample.disk-held"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    advice = "Detach the disk and run again."


@pytest.mark.slow(reason="imports the whole product, once")
def test_every_error_of_the_project_is_clear() -> None:
    assert (found := report(unclear_errors(error_classes()))) == "", found


@pytest.mark.slow(reason="imports the whole product, once")
def test_generated_pages_are_up_to_date() -> None:
    assert list(stale_pages()) == [], "run ./dev docs and commit the result"


def test_pages_with_dumps_are_generated_pages_too() -> None:
    assert {"docs/errors.md", "docs/formats/vhd.md"} <= set(makers())


def test_a_clear_error_passes() -> None:
    assert list(unclear_errors([_Clear])) == []


def _broken(**changes: object) -> type[HoldfastError]:
    body = {"__doc__": "It broke.", "code": "sample.broken", "advice": "Repair it.", "__module__": __name__} | changes
    return type("_Clear", (HoldfastError,), {name: value for name, value in body.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"code": None}, "no code of its own"),
        ({"code": "Broken"}, "area.what-happened"),
        ({"code": "sample.It_Broke"}, "area.what-happened"),
        ({"__doc__": None}, "no docstring"),
        ({"advice": None}, "gives no advice"),
        ({"advice": "repair"}, "no whole sentence"),
        ({"exit_status": ExitStatus.DAMAGED}, "what that means for the data"),
    ],
)
def test_an_unclear_error_is_found(changes: dict[str, object], complaint: str) -> None:
    assert complaint in report(unclear_errors([_broken(**changes)]))


def test_a_code_that_two_classes_share_is_found_at_both() -> None:
    assert report(unclear_errors([_broken(), _broken()])).count("shares the code") == 2


def test_what_is_inherited_counts_but_the_code_does_not() -> None:
    class _Child(_Clear):
        """The disk is held by a VM that is shutting down."""

    assert "no code of its own" in report(unclear_errors([_Child]))

    class _NamedChild(_Clear):
        """The disk is held by a VM that is shutting down."""

        code = "sample.disk-held-shutdown"

    assert list(unclear_errors([_NamedChild])) == []


class _Advising(HoldfastError):
    """Its advice depends on what it knows."""

    code = "sample.advising"

    def __init__(self, *, name: str, near_names: list[str]) -> None:
        super().__init__(name)
        self.name, self.near_names = name, near_names

    def next_step(self) -> str:
        if self.near_names:
            return f"Did you mean {self.near_names}?"
        return "List them " + "with 'holdfast vm list'." if self.name else self.advice


def test_the_page_shows_each_sentence_that_advice_can_be() -> None:
    assert steps_of(_Advising) == [
        "Did you mean {near names}?",
        "List them with 'holdfast vm list'.",
        HoldfastError.advice,
    ]
    assert steps_of(_Clear) == ["Detach the disk and run again."]


def test_advice_that_is_handed_on_is_said_to_be() -> None:
    class _Outer(_Clear):
        """Something inside failed."""

        def next_step(self) -> str:
            return self._next_step

        _next_step = ""

    assert steps_of(_Outer) == ["What the cause asks for; its own advice is shown."]


def test_the_page_tells_all_three_parts_and_the_status() -> None:
    page = errors_page([_Clear])
    assert "### `sample.disk-held`" in page
    assert "A disk is held by somebody else." in page
    assert "- Your data: No restore point was changed." in page
    assert "- What to do: Detach the disk and run again." in page
    assert "- Exit status 9 (`BUSY`); can be tried again later." in page


def test_every_exit_status_has_a_meaning() -> None:
    assert set(EXIT_MEANINGS) == set(ExitStatus)
