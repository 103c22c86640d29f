"""Rules on packages: a package has a front door, it says what it offers, and outsiders use nothing else.

``holdfast.formats`` is a house without a hall: each format below it is a package with a door of its own. A package
whose ``__init__`` offers nothing is a room of the package around it: who lives there walks in, all others use the door.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

from tests.tidy.source import Module, Offence

__all__ = ["doors_of", "openings", "side_entries", "unclear_doors"]

_HALLS = {"holdfast", "holdfast.formats"}
"""Packages that only hold packages: their children are entered directly."""


def openings(module: Module) -> list[str] | None:
    """Return the names in a file's ``__all__``; None when it has none, or one that is computed."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == "__all__" for each in node.targets
        ):
            try:
                return [str(each) for each in ast.literal_eval(node.value)]
            except ValueError:
                return None
    return None


def doors_of(modules: Iterable[Module]) -> dict[str, frozenset[str] | None]:
    """Return each package of the product with the names its door offers."""
    doors: dict[str, frozenset[str] | None] = {}
    for module in modules:
        if module.is_product and module.is_door:
            offered = openings(module)
            doors[module.dotted] = None if offered is None else frozenset(offered)
    return doors


def unclear_doors(module: Module) -> Iterator[Offence]:
    """Yield what is wrong with a door: content without ``__all__``, or names it does not have. Ruff keeps the order."""
    if not (module.is_product and module.is_door):
        return
    has_content = any(not _is_docstring(node) for node in module.tree.body)
    offered = openings(module)
    if offered is None:
        if has_content:
            yield module.offence(1, "a front door says what it offers: a literal __all__")
        return
    for name in sorted({name for name in offered if offered.count(name) > 1}):
        yield module.offence(1, f"{name} is offered twice")
    defined = _defined_names(module)
    if "__getattr__" not in defined:
        for name in offered:
            if name not in defined:
                yield module.offence(1, f"{name} is offered but not there")


def side_entries(module: Module, doors: Mapping[str, frozenset[str] | None]) -> Iterator[Offence]:
    """Yield imports that reach into a package past its front door, or take a name that the door does not offer.

    Tests may look inside the package that they test: they mirror it file by file. A ``__main__`` is no importer but a
    way to start.
    """
    if not module.is_product or module.dotted.endswith("__main__"):
        return
    for node in module.nodes:
        for target, name in _imports(node, module):
            if not target.startswith("holdfast"):
                continue
            door = _door_between(module, target, doors)
            if door is None:
                continue
            if target != door:
                yield module.offence(node, f"{target} is inside {door}: import from {door}, its front door")
            elif name is not None and name != "*" and f"{door}.{name}" not in doors and not _offers(doors[door], name):
                yield module.offence(node, f"{door} does not offer {name} (its __all__)")


def _imports(node: ast.AST, module: Module) -> Iterator[tuple[str, str | None]]:
    """Yield what an import statement takes: (module, name), name None for a plain import."""
    if isinstance(node, ast.Import):
        for each in node.names:
            yield each.name, None
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module.dotted if module.is_door else module.dotted.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - (node.level - 1)]
            base = ".".join([*above, base]) if base else ".".join(above)
        for each in node.names:
            yield base, each.name


def _door_between(module: Module, target: str, doors: Mapping[str, frozenset[str] | None]) -> str | None:
    """Return the outermost closed package around ``target`` that ``module`` is not in; None when it may walk in."""
    home = module.dotted.split(".")
    parts = target.split(".")
    for depth in range(1, len(parts) + 1):
        package = ".".join(parts[:depth])
        is_room = doors.get(package) is None and home[: depth - 1] == parts[: depth - 1]
        if package in _HALLS or package not in doors or is_room:
            continue
        if home[:depth] != parts[:depth]:
            return package
    return None


def _offers(offered: frozenset[str] | None, name: str) -> bool:
    """Whether a door has that name; a door without ``__all__`` is reported once, at the door itself."""
    return offered is None or name in offered


def _defined_names(module: Module) -> set[str]:
    names: set[str] = set()
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {each.asname or each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
