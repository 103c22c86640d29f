"""Rules on tests: each can fail, says why it is slow or skipped, and stands where the thing it tests stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from tests.tidy.source import Module, Offence

__all__ = ["misplaced_folders", "powerless_tests", "unexplained_skips"]


def powerless_tests(module: Module) -> Iterator[Offence]:
    """Yield tests that call nothing, and assertions that hold whatever happens."""
    if not module.path.startswith("tests/"):
        return
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            inside = list(ast.walk(node))
            if not any(isinstance(each, ast.Call | ast.Assert | ast.With) for each in inside):
                yield module.offence(node, "this test cannot fail: say what holds")
            for each in inside:
                if isinstance(each, ast.Assert) and _always_holds(each.test):
                    yield module.offence(each, f"this always holds: {ast.unparse(each)[:60]}")


def unexplained_skips(module: Module) -> Iterator[Offence]:
    """Yield tests marked slow, skipped or expected to fail without a reason that a reader can judge."""
    for node in module.nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            name = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
            if name not in ("pytest.mark.slow", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"):
                continue
            given = {each.arg for each in decorator.keywords} if isinstance(decorator, ast.Call) else set()
            if "reason" not in given:
                yield module.offence(decorator, f'{name} needs reason="..."')


def misplaced_folders(files: Collection[str]) -> Iterator[Offence]:
    """Yield folders of unit tests that mirror no package, or that are no package themselves."""
    folders = {match.group(1) for each in files if (match := re.match(r"tests/unit/(.+)/[^/]+\.py$", each))}
    for folder in sorted(folders):
        if f"src/holdfast/{folder}/__init__.py" not in files:
            yield Offence(
                path=f"tests/unit/{folder}", line=1, what=f"mirrors no package: there is no src/holdfast/{folder}"
            )
        if f"tests/unit/{folder}/__init__.py" not in files:
            yield Offence(
                path=f"tests/unit/{folder}", line=1, what="has no __init__.py: two files of one name would collide"
            )


def _always_holds(claim: ast.expr) -> bool:
    """Whether a claim is true by its form: a constant, or the tuple that ``assert (claim, message)`` makes."""
    if isinstance(claim, ast.Tuple):
        return bool(claim.elts)
    return isinstance(claim, ast.Constant) and bool(claim.value)
