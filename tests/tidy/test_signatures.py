"""A quantity carries its unit, and an argument that may be left out is named when it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.tidy import signatures
from tests.tidy.source import Module, Offence, modules, report, snippet

Rule = Callable[[Module], Iterator[Offence]]


@pytest.mark.slow(reason="reads the whole tree")
@pytest.mark.parametrize(
    "rule", [signatures.quantities_without_unit, signatures.defaults_by_position], ids=lambda rule: rule.__name__
)
def test_the_project_keeps(rule: Rule) -> None:
    assert (found := report(each for module in modules() for each in rule(module))) == "", found


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (signatures.quantities_without_unit, "def f(size: int): ..."),
        (signatures.quantities_without_unit, "def f(*, timeout: float = 1): ..."),
        (signatures.quantities_without_unit, "class A:\n    length: int"),
        (signatures.defaults_by_position, "def f(a, b=1): ..."),
        (signatures.defaults_by_position, "class A:\n    def f(self, b=1): ..."),
        (signatures.defaults_by_position, "class A:\n    def __init__(self, a=1, b=2): ..."),
    ],
)
def test_a_bad_snippet_is_found_once(rule: Rule, bad: str) -> None:
    assert len(list(rule(snippet(bad)))) == 1


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        (signatures.quantities_without_unit, "def f(size_bytes: int, *, timeout_s: float): ..."),
        (signatures.quantities_without_unit, "class A:\n    length_bytes: int\n    def size(self): ..."),
        (signatures.defaults_by_position, "def f(a, *, b=1): ..."),
        (signatures.defaults_by_position, "class A:\n    def __init__(self, reason=''): ..."),
        (signatures.defaults_by_position, "@app.command(name='list')\ndef list_(pool=None): ..."),
        (signatures.defaults_by_position, "def text(record, name, default=''): ..."),
        (signatures.defaults_by_position, "class A(Transport):\n    def request(self, host, verbose=False): ..."),
    ],
)
def test_a_good_snippet_passes(rule: Rule, good: str) -> None:
    assert list(rule(snippet(good))) == []


@pytest.mark.parametrize("path", ["tests/unit/x.py", "bench/x.py", "src/holdfast/lab/calls/session.py"])
def test_tests_measurements_and_calls_of_the_pool_are_free(path: str) -> None:
    module = snippet("def f(size, a=1): ...", path=path)
    assert list(signatures.quantities_without_unit(module)) + list(signatures.defaults_by_position(module)) == []
