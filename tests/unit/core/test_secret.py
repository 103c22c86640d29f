"""A secret shows itself only to the one who asks for it by name."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest

from holdfast.core import Secret

PLAIN = "correct horse battery staple"


@pytest.mark.parametrize(
    "shown",
    [
        str(Secret(PLAIN)),
        repr(Secret(PLAIN)),
        f"{Secret(PLAIN)}",
        f"{Secret(PLAIN)!r:>40}",
        "%s %r" % (Secret(PLAIN), Secret(PLAIN)),  # noqa: UP031 - the very thing a log call does
        repr({"password": [Secret(PLAIN)]}),
        str(ValueError("login failed", Secret(PLAIN))),
    ],
)
def test_no_way_of_printing_shows_it(shown: str) -> None:
    assert PLAIN not in shown
    assert "***" in shown


def test_only_reveal_gives_it_back() -> None:
    assert Secret(PLAIN).reveal() == PLAIN


def test_json_refuses_it() -> None:
    with pytest.raises(TypeError):
        json.dumps({"password": Secret(PLAIN)})


def test_a_log_record_does_not_carry_it(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("login as %s with %s", "root", Secret(PLAIN))
    assert PLAIN not in caplog.text


def test_a_traceback_does_not_carry_it() -> None:
    try:
        raise ValueError(Secret(PLAIN))
    except ValueError:
        assert PLAIN not in traceback.format_exc()


def test_equal_secrets_are_equal_and_nothing_else_is() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert copy.deepcopy([copy.copy(Secret("a"))]) == [Secret("a")]


def test_a_secret_that_is_no_valid_text_compares_without_failing() -> None:
    from_environment = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert Secret(from_environment) == Secret(from_environment)
    assert Secret(from_environment) != Secret("x")


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret("x")


def test_pickling_is_no_way_around_it() -> None:
    """A pickle would put the plain text into whatever stores it; the type must refuse."""
    with pytest.raises(TypeError):
        pickle.dumps(Secret(PLAIN))
