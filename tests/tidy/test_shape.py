"""A module holds one idea, a function fits one screen, a file says what it is for, nothing is swallowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.tidy import shape
from tests.tidy.source import Module, Offence, modules, report, snippet

Rule = Callable[[Module], Iterator[Offence]]

RULES: list[Rule] = [
    shape.crowded_modules,
    shape.long_functions,
    shape.silent_modules,
    shape.broad_handlers,
    shape.bounds_without_reason,
]


@pytest.mark.slow(reason="reads the whole tree")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps(rule: Rule) -> None:
    assert (found := report(each for module in modules() for each in rule(module))) == "", found


def _function(lines: int) -> str:
    return '"""Says what it is for."""\ndef f() -> None:\n' + "    x = 1\n" * (lines - 1)


def _handler(clause: str, body: str) -> str:
    return f'"""Says what it is for."""\ntry:\n    x = 1\n{clause}\n    {body}\n'


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (shape.crowded_modules, '"""Says what it is for."""\n' + "x = 1\n" * shape.MODULE_LINES_MAX),
        (shape.long_functions, _function(shape.FUNCTION_LINES_MAX + 1)),
        (shape.silent_modules, "x = 1\n"),
        (shape.silent_modules, '"""Module."""\n'),
        (shape.silent_modules, '"""no end to this line"""\n'),
        (shape.broad_handlers, _handler("except:", "raise")),
        (shape.broad_handlers, _handler("except BaseException:", "x = 2")),
        (shape.broad_handlers, _handler("except (OSError, BaseException) as cause:", "x = 2")),
        (shape.broad_handlers, _handler("except Exception:", "pass")),
        (shape.bounds_without_reason, "import x\n\n_READ_BYTES_MAX = 7\nOTHER = 8\n"),
    ],
)
def test_a_bad_snippet_is_found_once(rule: Rule, bad: str) -> None:
    assert len(list(rule(snippet(bad)))) == 1


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        (shape.crowded_modules, "x = 1\n" * shape.MODULE_LINES_MAX),
        (shape.long_functions, _function(shape.FUNCTION_LINES_MAX)),
        (shape.long_functions, "def f():\n    '''" + "Help.\n" * 40 + "'''\n" + "    x = 1\n" * 50),
        (shape.silent_modules, '"""Says what it is responsible for.\n\nMore below"""\n'),
        (shape.broad_handlers, _handler("except BaseException:", "raise")),
        (shape.broad_handlers, _handler("except BaseException as cause:", "self.failure = cause")),
        (shape.broad_handlers, _handler("except OSError:", "pass")),
        (shape.broad_handlers, _handler("except Exception as cause:", "report(cause)")),
        (shape.bounds_without_reason, '_READ_BYTES_MAX = 7\n"""As much as one answer holds."""\n'),
        (shape.bounds_without_reason, "_READ_BYTES_MAX = 7  # as much as one answer holds\n"),
        (shape.bounds_without_reason, "_READ_BLOCKS_MAX = limits.READ_BYTES_MAX // 4\n"),
    ],
)
def test_a_good_snippet_passes(rule: Rule, good: str) -> None:
    assert list(rule(snippet(good))) == []


def test_an_offence_says_where_it_is() -> None:
    (offence,) = shape.long_functions(snippet(_function(99), path="src/holdfast/core/x.py"))
    assert str(offence) == f"src/holdfast/core/x.py:2: f has 99 lines, {shape.FUNCTION_LINES_MAX} fit one screen"
