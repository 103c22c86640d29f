"""Rules on shape: a module holds one idea, a function fits one screen, a file says what it is responsible for."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator

from tests.tidy.source import Module, Offence

__all__ = [
    "FUNCTION_LINES_MAX",
    "MODULE_LINES_MAX",
    "MODULE_LINES_WANTED",
    "bounds_without_reason",
    "broad_handlers",
    "crowded_modules",
    "long_functions",
    "silent_modules",
]

MODULE_LINES_WANTED = 500
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60

_BOUNDS_OF_OTHERS = ("src/holdfast/lab/", "src/holdfast/formats/", "src/holdfast/cli/lab")


def crowded_modules(module: Module) -> Iterator[Offence]:
    """Yield an offence when a file holds more than one idea can need."""
    lines = module.text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield module.offence(
            lines, f"{lines} lines; split it by ideas (at {MODULE_LINES_WANTED}, {MODULE_LINES_MAX} is refused)"
        )


def long_functions(module: Module) -> Iterator[Offence]:
    """Yield the functions that do not fit one screen. Decorators and docstrings do not count: they are read apart."""
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _lines_of(node) - (_lines_of(node.body[0]) if ast.get_docstring(node) is not None else 0)
            if lines > FUNCTION_LINES_MAX:
                yield module.offence(node, f"{node.name} has {lines} lines, {FUNCTION_LINES_MAX} fit one screen")


def silent_modules(module: Module) -> Iterator[Offence]:
    """Yield files that do not open with a sentence on what they are responsible for."""
    said = ast.get_docstring(module.tree) or ""
    if len(said.split()) < 2 or not said.split("\n\n")[0].rstrip().endswith((".", ":", "?", "!", "``")):
        yield module.offence(1, "a file opens with a sentence that says what it is responsible for")


def broad_handlers(module: Module) -> Iterator[Offence]:
    """Yield handlers that catch everything and hand on nothing."""
    for node in module.nodes:
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            yield module.offence(node, "bare except: it also swallows Ctrl-C; name what can be handled here")
        elif _catches(node.type, "BaseException") and not _hands_on(node):
            yield module.offence(node, "except BaseException that neither raises nor keeps the error swallows Ctrl-C")
        elif _catches(node.type, "Exception") and all(isinstance(each, ast.Pass) for each in node.body):
            yield module.offence(node, "an error is raised or reported, never dropped: name it, or make it a finding")


def bounds_without_reason(module: Module) -> Iterator[Offence]:
    """Yield bounds at the head of a module that do not say why they are so: in a line below, a comment, or by a limit.

    The lab and the formats of others are passed over: their bounds are those of what they imitate or describe.
    """
    if not module.path.startswith("src/holdfast/") or module.path.startswith(_BOUNDS_OF_OTHERS):
        return
    lines = module.text.splitlines()
    for node, following in itertools.pairwise([*module.tree.body, None]):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        is_said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        around = lines[max(0, node.lineno - 2) : node.end_lineno]
        if name.endswith("_MAX") and not (is_said or any("#" in line or "limits." in line for line in around)):
            yield module.offence(node, f"{name} is a bound without a reason: say why in a line below it")


def _lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _catches(kind: ast.expr, name: str) -> bool:
    """Whether an except clause names that class, alone or in a tuple."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(isinstance(each, ast.Name) and each.id == name for each in kinds)


def _hands_on(handler: ast.ExceptHandler) -> bool:
    """Whether the error is raised again, or kept by name for the thread that will raise it."""
    inside = list(ast.walk(handler))
    kept = any(isinstance(each, ast.Name) and each.id == handler.name for each in inside)
    return kept or any(isinstance(each, ast.Raise) for each in inside)
