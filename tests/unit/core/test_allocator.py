"""Tuning the allocator is a hint: it works on glibc and is refused quietly elsewhere."""

from __future__ import annotations

import ctypes

import pytest

from holdfast.core import keep_freed_memory


def test_it_says_whether_it_could(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keep_freed_memory() is hasattr(ctypes.CDLL(None), "mallopt")

    class _OtherLibrary:
        def __init__(self, _name: str | None) -> None:
            pass

    monkeypatch.setattr(ctypes, "CDLL", _OtherLibrary)
    assert keep_freed_memory() is False
