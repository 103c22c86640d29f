"""Proof of life: an executor counts as alive exactly while its process holds its lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core import SeededEntropy, SystemEntropy
from holdfast.runs import executors
from holdfast.runs.executors import is_alive, sweep_dead, take_executor
from tests.unit.runs import worker


def test_an_executor_is_alive_until_it_is_closed(tmp_path: Path) -> None:
    with take_executor(tmp_path / "x", entropy=SystemEntropy()) as executor:
        assert is_alive(tmp_path / "x", executor.id)
        assert is_alive(tmp_path / "x", executor.id), "asking must not take the lock away"
    assert not is_alive(tmp_path / "x", executor.id)
    executor.close()
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.slow(reason="a real process that is killed; the first one loads the engine for all")
def test_a_killed_process_is_dead_at_once(tmp_path: Path) -> None:
    told = worker.context().SimpleQueue()
    process = worker.start_process(worker.hold_executor, tmp_path, told)
    executor_id = told.get()
    assert is_alive(tmp_path, executor_id)
    assert sweep_dead(tmp_path) == []
    process.kill()
    process.join(60)
    assert not is_alive(tmp_path, executor_id)
    assert sweep_dead(tmp_path) == [executor_id]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_executor_is_dead(tmp_path: Path) -> None:
    assert not is_alive(tmp_path, "x-0000")


def test_a_name_that_somebody_holds_is_not_taken_twice(tmp_path: Path) -> None:
    with (
        take_executor(tmp_path, entropy=SeededEntropy(1)) as first,
        take_executor(tmp_path, entropy=SeededEntropy(1)) as second,
    ):
        assert first.id != second.id
        assert is_alive(tmp_path, first.id) and is_alive(tmp_path, second.id)


def test_a_file_that_was_swept_before_it_was_locked_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper may remove a fresh file between its creation and its lock; the taker must notice and go on."""
    real_lock = executors._try_lock
    swept: list[bool] = []

    def sweep_first(descriptor: int, *, shared: bool = False) -> bool:
        if not swept:
            swept.append(True)
            for path in tmp_path.iterdir():
                path.unlink()
        return real_lock(descriptor, shared=shared)

    monkeypatch.setattr(executors, "_try_lock", sweep_first)
    with take_executor(tmp_path, entropy=SystemEntropy()) as executor:
        assert is_alive(tmp_path, executor.id)
    assert swept
