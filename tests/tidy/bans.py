"""Rules on the outside: time, chance, environment and processes arrive through the constructor, never by a call.

The rule looks at references, not only at calls, so that ``key=time.time`` is found too. Every exception to it is one
line of data with its reason, and an exception that nothing needs any more is an offence itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.tidy.allowed import ALLOWED, Allowed
from tests.tidy.source import Module, Offence

__all__ = ["BANNED", "Ban", "banned_references", "idle_allowances"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """A name from outside, and what to use in its place. A trailing dot bans everything below."""

    name: str
    instead: str

    def covers(self, name: str) -> bool:
        """Whether a dotted name falls under this ban."""
        return name.startswith(self.name) if self.name.endswith(".") else name == self.name


_CLOCK = "take a core.Clock in the constructor"
_ENTROPY = "take a core.Entropy in the constructor"
_SETTINGS = "only cli and daemon read the environment; pass the value in"
_PROCESS = "take a runner in the constructor, or place the call in the module that owns that tool"
_DECODING = "core.from_json, from_msgpack or from_builtins: msgspec is not safe where threads meet a type first"

BANNED = (
    Ban(name="time.time", instead=_CLOCK),
    Ban(name="time.time_ns", instead=_CLOCK),
    Ban(name="time.sleep", instead=f"{_CLOCK}; a wait listens to a Cancellation"),
    Ban(name="datetime.datetime.now", instead=_CLOCK),
    Ban(name="datetime.datetime.utcnow", instead=_CLOCK),
    Ban(name="datetime.datetime.today", instead=_CLOCK),
    Ban(name="datetime.date.today", instead=_CLOCK),
    Ban(name="uuid.uuid1", instead=_ENTROPY),
    Ban(name="uuid.uuid4", instead=_ENTROPY),
    Ban(name="random.", instead=_ENTROPY),
    Ban(name="secrets.", instead=_ENTROPY),
    Ban(name="os.urandom", instead=_ENTROPY),
    Ban(name="os.environ", instead=_SETTINGS),
    Ban(name="os.environb", instead=_SETTINGS),
    Ban(name="os.getenv", instead=_SETTINGS),
    Ban(name="subprocess.", instead=_PROCESS),
    Ban(name="os.system", instead=_PROCESS),
    Ban(name="os.popen", instead=_PROCESS),
    Ban(name="pickle.", instead="msgspec or json: a pickle runs code of whoever wrote it"),
    Ban(name="msgspec.convert", instead=_DECODING),
    Ban(name="msgspec.json.decode", instead=_DECODING),
    Ban(name="msgspec.json.Decoder", instead=_DECODING),
    Ban(name="msgspec.msgpack.decode", instead=_DECODING),
    Ban(name="msgspec.msgpack.Decoder", instead=_DECODING),
    Ban(name="print", instead="core.get_log for events; only faces print"),
    Ban(name="breakpoint", instead="nothing: take it out"),
)

_IN_TESTS = {"time.sleep", "random.", "breakpoint"}
"""Tests own their time and their chance too: ManualClock, SeededEntropy or ``random.Random(seed)``."""


def banned_references(module: Module, *, allowed: Sequence[Allowed] = ALLOWED) -> Iterator[Offence]:
    """Yield every reference to a banned name that no allowance covers."""
    for node, ban in _references(module):
        if not any(each.covers(path=module.path, name=ban.name) for each in allowed):
            yield module.offence(node, f"{ban.name.rstrip('.')} is banned here: {ban.instead}")


def idle_allowances(modules: Iterable[Module], *, allowed: Sequence[Allowed] = ALLOWED) -> Iterator[Offence]:
    """Yield allowances that cover nothing in the project any more."""
    used = {(module.path, ban.name) for module in modules for _, ban in _references(module)}
    for each in allowed:
        if not any(each.covers(path=path, name=name) for path, name in used):
            yield Offence(
                path="tests/tidy/allowed.py", line=1, what=f"nothing needs {each.name} in {each.path} any more"
            )


def _references(module: Module) -> Iterator[tuple[ast.AST, Ban]]:
    bans = [each for each in BANNED if module.is_product or each.name in _IN_TESTS]
    names = _imported_names(module)
    shadowed = _bound_names(module)
    for node in module.nodes:
        dotted = _dotted(node, names)
        if dotted is None or (dotted in shadowed and dotted not in names):
            continue
        if not module.is_product and dotted == "random.Random":
            continue
        for ban in bans:
            if ban.covers(dotted):
                yield node, ban


def _imported_names(module: Module) -> dict[str, str]:
    """Return what each imported local name stands for, e.g. ``{"dt": "datetime.datetime"}``."""
    names: dict[str, str] = {}
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for each in node.names:
                names[each.asname or each.name.split(".")[0]] = each.name if each.asname else each.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for each in node.names:
                names[each.asname or each.name] = f"{node.module}.{each.name}"
    return names


def _bound_names(module: Module) -> set[str]:
    """Return names the file defines itself, such as a method called ``print``."""
    defined = {each.name for each in module.nodes if isinstance(each, ast.FunctionDef | ast.ClassDef)}
    return defined | {each.arg for each in module.nodes if isinstance(each, ast.arg)}


def _dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """Return the full dotted name that a reference stands for; None when the node is anything else."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return names.get(node.id, node.id if node.id in ("print", "breakpoint") else None)
    if isinstance(node, ast.Attribute):
        parts = [node.attr]
        inner = node.value
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in names:
            return ".".join([names[inner.id], *reversed(parts)])
    return None
