"""Every test can fail, says why it is slow or skipped, and stands where the thing it tests stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.tidy import proofs
from tests.tidy.source import Module, Offence, modules, project_files, report, snippet

Rule = Callable[[Module], Iterator[Offence]]


@pytest.mark.slow(reason="reads the whole tree")
@pytest.mark.parametrize("rule", [proofs.powerless_tests, proofs.unexplained_skips], ids=lambda rule: rule.__name__)
def test_the_project_keeps(rule: Rule) -> None:
    assert (found := report(each for module in modules() for each in rule(module))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_unit_tests_mirror_the_source() -> None:
    assert (found := report(proofs.misplaced_folders(project_files()))) == "", found


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (proofs.powerless_tests, "def test_a():\n    x = 1\n"),
        (proofs.powerless_tests, 'def test_a():\n    """Says much."""\n'),
        (proofs.powerless_tests, "def test_a():\n    assert True\n"),
        (proofs.powerless_tests, "def test_a():\n    assert (run(), 'it runs')\n"),
        (proofs.unexplained_skips, "@pytest.mark.slow\ndef test_a(): ...\n"),
        (proofs.unexplained_skips, "@pytest.mark.slow()\ndef test_a(): ...\n"),
        (proofs.unexplained_skips, "@pytest.mark.skipif(True)\ndef test_a(): ...\n"),
    ],
)
def test_a_bad_snippet_is_found_once(rule: Rule, bad: str) -> None:
    assert len(list(rule(snippet(bad, path="tests/unit/core/test_x.py")))) == 1


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        (proofs.powerless_tests, "def test_a():\n    assert run()\n"),
        (proofs.powerless_tests, "def test_a():\n    assert (run()), 'it runs'\n"),
        (proofs.powerless_tests, "def test_closing_twice_is_harmless():\n    run()\n    run()\n"),
        (proofs.powerless_tests, "def test_a():\n    with pytest.raises(OSError):\n        x[0]\n"),
        (proofs.powerless_tests, "def helper():\n    x = 1\n"),
        (proofs.unexplained_skips, '@pytest.mark.slow(reason="starts a process")\ndef test_a(): ...\n'),
    ],
)
def test_a_good_snippet_passes(rule: Rule, good: str) -> None:
    assert list(rule(snippet(good, path="tests/unit/core/test_x.py"))) == []


def test_a_folder_that_mirrors_nothing_is_found() -> None:
    files = [
        "src/holdfast/core/__init__.py",
        "tests/unit/core/__init__.py",
        "tests/unit/core/test_x.py",
        "tests/unit/gone/__init__.py",
        "tests/unit/gone/test_x.py",
    ]
    assert [each.path for each in proofs.misplaced_folders(files)] == ["tests/unit/gone"]
    files.append("src/holdfast/gone/__init__.py")
    files.remove("tests/unit/core/__init__.py")
    assert [each.path for each in proofs.misplaced_folders(files)] == ["tests/unit/core"]
