"""Which calls of the API the lab knows and checks, but answers with ``NOT_IMPLEMENTED``: the edge of the simulation."""

from __future__ import annotations

from typing import cast

from holdfast.lab.calls import all_handlers
from holdfast.lab.datamodel import load_datamodel
from holdfast.lab.events import Events
from holdfast.lab.generic import build_methods
from holdfast.lab.records import Records

__all__ = ["unanswered_calls"]


def unanswered_calls() -> dict[str, tuple[str, ...]]:
    """Return the names of such calls, sorted, by class. Removed and internal calls are not among them: a real pool
    refuses those, too."""
    # Methods are only looked at here, so what they would read from a pool may be missing.
    methods = build_methods(load_datamodel(), cast(Records, None), all_handlers(cast(Events, None)))
    found: dict[str, list[str]] = {}
    for name, method in sorted(methods.items()):
        if method.handler is None and not (method.is_removed or method.is_internal or method.is_sealed):
            cls, _, call = name.partition(".")
            found.setdefault(cls, []).append(call)
    return {cls: tuple(calls) for cls, calls in found.items()}
