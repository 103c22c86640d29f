"""Where the recordings of a real XAPI are, for the tests that hold our code against them.

The recordings are data that does not belong to the project: they lie beside the checkout, in ``shared/golden``. A test
that needs one says so through ``golden_path`` and is skipped, loudly, where they are absent.
"""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["GOLDEN_ABSENT", "find_golden", "golden_path"]

GOLDEN_ABSENT = "golden recording is not here"
"""How every such skip begins; CI tells it from a judge that should have been installed."""

_FOLDER = Path("shared") / "golden"


def golden_path(name: str) -> Path:
    """Return the path of one recording; skip the calling test when it is not on this machine."""
    found = find_golden(name, start=Path(__file__).resolve())
    if found is None:
        pytest.skip(
            f"{GOLDEN_ABSENT}: no folder above the checkout holds {_FOLDER.as_posix()}/{name}",
            allow_module_level=True,
        )
    return found


def find_golden(name: str, *, start: Path) -> Path | None:
    """Return the nearest recording of that name in a ``shared/golden`` beside ``start`` or a folder above it."""
    for folder in start.parents:
        candidate = folder / _FOLDER / name
        if candidate.exists():
            return candidate
    return None
