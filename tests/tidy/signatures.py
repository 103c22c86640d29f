"""Rules on signatures: a quantity carries its unit, and an argument that may be left out is named when it is given."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.source import Module, Offence

__all__ = ["defaults_by_position", "quantities_without_unit"]

_BARE = {
    "age": "age_days",
    "delay": "delay_s",
    "duration": "duration_s",
    "interval": "interval_s",
    "length": "length_bytes",
    "size": "size_bytes",
    "time": "taken_at, started_at",
    "timeout": "timeout_s",
}

_SPELLED_BY_OTHERS = ("src/holdfast/lab/calls/",)
"""Folders whose functions are the pool's own calls: XAPI chose their arguments, with names, order and defaults."""


def quantities_without_unit(module: Module) -> Iterator[Offence]:
    """Yield parameters and fields that are a quantity and do not say of what."""
    if not module.is_product or module.path.startswith(_SPELLED_BY_OTHERS):
        return
    for node in module.nodes:
        if isinstance(node, ast.arg) and node.arg in _BARE:
            yield module.offence(node, f"{node.arg} has no unit: name it like {_BARE[node.arg]}")
        elif isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id in _BARE:
                    yield module.offence(field, f"{field.target.id} has no unit: name it like {_BARE[field.target.id]}")


def defaults_by_position(module: Module) -> Iterator[Offence]:
    """Yield functions whose defaulted arguments can be given by position, where nobody sees what they mean.

    A method of a class with a base is left alone: what it overrides may have chosen for it. So is a command of the
    command line, whose signature is its grammar, and ``default``, which means the same everywhere.
    """
    if not module.is_product or module.path.startswith(_SPELLED_BY_OTHERS):
        return
    inherited = {
        method for node in module.nodes if isinstance(node, ast.ClassDef) and node.bases for method in node.body
    }
    for node in module.nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node in inherited or not node.args.defaults:
            continue
        defaulted = (node.args.posonlyargs + node.args.args)[-len(node.args.defaults) :]
        if [each.arg for each in defaulted] == ["default"] or any(_is_command(each) for each in node.decorator_list):
            continue
        # The one obvious thing an object is made of may be left out by position: ManualClock(start).
        if not (node.name == "__init__" and len(defaulted) == 1):
            names = ", ".join(each.arg for each in defaulted)
            yield module.offence(node, f"{node.name}: {names} has a default, so it is keyword-only (put * before it)")


def _is_command(decorator: ast.expr) -> bool:
    name = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return name in ("app.command", "app.default")
