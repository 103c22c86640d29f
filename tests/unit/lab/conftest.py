"""One bare lab for all tests of a module, and a session at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.support.lab import logged_in, tiny_lab


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    """A running bare lab; a test cleans up what it makes."""
    with tiny_lab() as running:
        yield running


@pytest.fixture
def session(lab: RunningLab) -> Iterator[Any]:
    """A session of the vendor's client; no fault that a test armed survives it."""
    with logged_in(lab) as session:
        yield session
    lab.pool.faults.clear()


@pytest.fixture
def api(session: Any) -> Any:
    """The calls of that session: ``api.VM.get_all()``."""
    return session.xenapi
