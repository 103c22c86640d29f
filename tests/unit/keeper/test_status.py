"""What a keeper says is told with how old it is, and what is not as it should be is told with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core import ManualClock
from holdfast.keeper import (
    KEEPER_FOLDER,
    WORD_FILE,
    Keeper,
    KeeperSilent,
    KeeperStatus,
    KeeperWord,
    explain_not_held,
    read_status,
)
from tests.support.keeping import Kept

FINE = {"days": 30, "days_max": 105, "time_s": 0, "behind_s": 0, "held_files": 7, "not_held": 0}


@pytest.mark.parametrize(("days", "days_max"), [(1, 47), (30, 105), (2000, 3650), (3650, 3650)])
def test_a_request_may_ask_for_twice_the_days_and_their_steps_but_for_no_more_than_any_lock(
    tmp_path: Path, days: int, days_max: int
) -> None:
    kept = Kept(tmp_path)
    with Keeper(kept.folder, state=kept.state, days=days, flags=kept.flags, clock=kept.clock) as keeper:
        keeper.look()
    word = read_status(kept.folder, clock=kept.clock).word
    assert (word.days, word.days_max) == (days, days_max)


def test_the_age_of_the_last_look_is_told(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.look()
    looked_at = (kept.folder / KEEPER_FOLDER / WORD_FILE).stat().st_mtime
    clock = ManualClock(kept.clock.now())
    clock.advance(max(0.0, looked_at + 90 - clock.now().timestamp()))
    status = read_status(kept.folder, clock=clock)
    assert status.age_s == pytest.approx(clock.now().timestamp() - looked_at)
    assert "objects, new ones for 30 days; last look" in status.explain()


def test_a_folder_without_a_keeper_or_with_another_word_is_silence(tmp_path: Path) -> None:
    with pytest.raises(KeeperSilent, match="No such file"):
        read_status(tmp_path, clock=ManualClock())
    (tmp_path / KEEPER_FOLDER).mkdir()
    (tmp_path / KEEPER_FOLDER / WORD_FILE).write_bytes(b"{}")
    with pytest.raises(KeeperSilent, match="not the word of a keeper"):
        read_status(tmp_path, clock=ManualClock())


def test_what_is_not_held_and_a_time_that_is_far_behind_are_remarked() -> None:
    assert list(KeeperStatus(word=KeeperWord(**FINE), age_s=1).remarks()) == []
    remarks = list(KeeperStatus(word=KeeperWord(**FINE | {"not_held": 2, "behind_s": 7200}), age_s=1).remarks())
    assert remarks[0] == explain_not_held(2)
    assert "2 h 00 min behind" in remarks[1]
    assert list(KeeperStatus(word=KeeperWord(**FINE | {"behind_s": 3600}), age_s=1).remarks()) == []
