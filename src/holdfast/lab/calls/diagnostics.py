"""Calls for the pool's developers: how its daemon uses memory, its database and the network. The lab does not measure
itself, so all figures are nothing; their names are those that programs look for."""

from __future__ import annotations

from holdfast.lab.context import CallSet, Context

__all__ = ["calls"]

calls = CallSet()

_MEMORY = (
    "minor_words promoted_words major_words minor_collections major_collections heap_words heap_chunks live_words "
    "live_blocks free_words free_blocks largest_free fragments compactions top_heap_words"
).split()
_WHOLE_NUMBERS_FROM = 3
"""The first ones are too large for whole numbers, and spelled otherwise."""


@calls.on("Diagnostics.gc_stats")
def gc_stats(context: Context, host: str) -> dict[str, str]:
    """Return how the daemon's memory is used."""
    return {name: "0" if at >= _WHOLE_NUMBERS_FROM else "0." for at, name in enumerate(_MEMORY)}


@calls.on("Diagnostics.gc_compact")
def gc_compact(context: Context, host: str) -> str:
    """Nothing to tidy up."""
    return ""


@calls.on("Diagnostics.db_stats")
def db_stats(context: Context) -> dict[str, str]:
    """Return how long the database was locked."""
    return {"n": "0", **dict.fromkeys(("avgtime", "min", "max"), "0.000000")}


@calls.on("Diagnostics.network_stats")
def network_stats(context: Context, host: str, options: dict[str, str]) -> list[list[str]]:
    """Return how often each handler was used."""
    return []
