"""Where Holdfast keeps its files: the option, then the environment, then the user's data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.daemon import read_settings


def test_the_nearest_wish_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("HOLDFAST_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert read_settings().home == Path("/home/x/.local/share/holdfast")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert read_settings().home == Path("/data/holdfast")
    monkeypatch.setenv("HOLDFAST_HOME", "/elsewhere")
    assert read_settings().home == Path("/elsewhere")
    assert read_settings(home=tmp_path).home == tmp_path
