"""The keeper holds what is finished for its days, lets go after them and never before, whatever is done to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.core import ManualClock
from holdfast.keeper import (
    KEEPER_FOLDER,
    Keeper,
    KeeperBusy,
    KeeperDaysInvalid,
    KeeperNotRoot,
    KeeperRefused,
    KeeperStateDamaged,
    parse_word,
)
from tests.support.keeping import DAY_S, FakeFlags, Kept

PACK = "packs/3f/3f9a4c1d2e3f405162738495a6b7c8d9"
OTHER = "packs/00/00000000000000000000000000000001"
POINT = "points/abababababababababababababababab/20261120T090820Z-0badcafe"
CHANGING = (
    "leases/3f9a4c1d2e3f405162738495a6b7c8d9/00000001",
    "condemned/20261120T090820Z-0badcafe",
    "index/20261120T090820Z-0badcafe",
    "catalogue/20261120T090820Z-0badcafe",
    "quarantine/20261120T090820Z-0badcafe",
    "proofs/20261120T090820Z-0badcafe",
    "holes/20261120T090820Z-0badcafe",
)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    made = Kept(tmp_path)
    for key in (PACK, POINT, "keys/recovery.age"):
        made.store.put(key, b"data")
    return made


def held_until(kept: Kept, key: str) -> datetime | None:
    return kept.store.locked_until(key)


def test_finished_objects_are_held_for_the_days_and_not_longer(kept: Kept) -> None:
    with kept.keeper() as keeper:
        assert keeper.look().newly_held == 4
        until = kept.clock.now() + timedelta(days=30)
        for key in (PACK, POINT, "keys/recovery.age", "holdfast.json"):
            assert kept.is_held(key), key
            assert held_until(kept, key) == until
        for _ in range(29):
            kept.clock.advance(DAY_S)
            assert keeper.look().let_go == 0
        assert kept.is_held(PACK)
        kept.clock.advance(DAY_S)
        assert keeper.look().let_go == 4
    assert not kept.is_held(PACK)
    assert held_until(kept, PACK) is None
    kept.store.delete(PACK)


def test_what_is_let_go_is_not_held_again_unless_it_is_asked_for(kept: Kept) -> None:
    with kept.keeper() as keeper:
        keeper.look()
        for _ in range(31):
            kept.clock.advance(DAY_S)
            keeper.look()
        assert not kept.is_held(PACK)
        until = kept.clock.now() + timedelta(days=10)
        assert kept.store.try_lock(PACK, until) == until
        assert keeper.look().lengthened == 1
        assert kept.is_held(PACK)
        assert held_until(kept, PACK) == until
        assert not kept.is_held(POINT)


def test_what_comes_and_goes_and_what_is_unfinished_is_never_held(kept: Kept) -> None:
    for key in CHANGING:
        kept.store.put(key, b"x")
    (kept.folder / "tmp" / "put-abcdefgh").write_bytes(b"x")
    (kept.folder / "packs" / "3f" / "README").write_bytes(b"x")
    kept.look()
    assert not any(kept.is_held(key) for key in (*CHANGING, "tmp/put-abcdefgh", "packs/3f/README"))


def test_a_file_that_its_writer_has_not_let_go_of_waits_until_it_has(kept: Kept) -> None:
    temporary = kept.folder / "tmp" / "put-abcdefgh"
    (kept.folder / "packs" / "00").mkdir()
    temporary.write_bytes(b"x")
    os.utime(temporary, (kept.clock.now().timestamp(),) * 2)
    os.link(temporary, kept.folder / OTHER)
    with kept.keeper() as keeper:
        assert keeper.look().not_held == 1
        assert not kept.is_held(OTHER)
        temporary.unlink()
        assert keeper.look().newly_held == 1
    assert kept.is_held(OTHER)


def test_a_name_that_a_dead_writer_left_does_not_keep_an_object_from_being_held(kept: Kept) -> None:
    temporary = kept.folder / "tmp" / "put-abcdefgh"
    (kept.folder / "packs" / "00").mkdir()
    temporary.write_bytes(b"x")
    os.link(temporary, kept.folder / OTHER)
    os.utime(temporary, (kept.clock.now().timestamp() - 2 * 3600,) * 2)
    kept.look()
    assert kept.is_held(OTHER)
    assert not temporary.exists()


def test_a_file_with_a_name_outside_is_left_alone_and_told(kept: Kept, tmp_path: Path) -> None:
    outside = tmp_path / "passwd"
    outside.write_bytes(b"root:x")
    (kept.folder / "packs" / "00").mkdir()
    os.link(outside, kept.folder / OTHER)
    assert kept.look().not_held == 1
    assert not kept.is_held(OTHER)
    assert outside.read_bytes() == b"root:x"


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "pipe", "folder of links"])
def test_links_and_pipes_in_the_place_of_objects_lead_root_nowhere(kept: Kept, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    victim = outside / Path(OTHER).name
    victim.write_bytes(b"x")
    packs = kept.folder / "packs"
    match kind:
        case "link to a file":
            (packs / "00").mkdir()
            (kept.folder / OTHER).symlink_to(victim)
        case "link to a folder":
            (packs / "00").symlink_to(outside)
        case "pipe":
            (packs / "00").mkdir()
            os.mkfifo(kept.folder / OTHER)
        case _:
            packs.rename(tmp_path / "gone")
            packs.symlink_to(outside)
    kept.look()
    assert kept.flags.of(victim) == 0


def test_the_folders_are_pinned_in_their_places(kept: Kept) -> None:
    kept.look()
    assert all(kept.is_pinned(folder) for folder in ("", "packs", "points"))
    assert not kept.is_pinned("packs/3f"), "garbage collection removes files there"


def test_requests_lengthen_and_nothing_shortens(kept: Kept) -> None:
    start = kept.clock.now()
    with kept.keeper() as keeper:
        keeper.look()
        kept.store.try_lock(PACK, start + timedelta(days=60))
        keeper.look()
        assert held_until(kept, PACK) == start + timedelta(days=60)
        kept.store.try_lock(PACK, start + timedelta(days=1))
        assert keeper.look().lengthened == 0
        assert held_until(kept, PACK) == start + timedelta(days=60)


def test_a_lying_machine_can_hold_only_as_long_as_the_keeper_allows(kept: Kept) -> None:
    with kept.keeper(days_max=50) as keeper:
        keeper.look()
        asked = kept.clock.now() + timedelta(days=10_000)
        assert kept.store.try_lock(PACK, asked) == kept.clock.now() + timedelta(days=50)
        requests = kept.folder / KEEPER_FOLDER / "requests"
        (requests / "forged").write_bytes(f"{int(asked.timestamp())} {PACK}\n0 {POINT}\n-5 {POINT}\n".encode())
        (requests / "rubbish").write_bytes(b"\xff\x00\n1 ../../etc/passwd\n99999999999999999999 " + PACK.encode())
        (requests / "link").symlink_to("/etc/passwd")
        keeper.look()
    assert held_until(kept, PACK) == kept.clock.now() + timedelta(days=50)
    assert held_until(kept, POINT) == kept.clock.now() + timedelta(days=30)


def test_a_request_that_comes_before_its_object_waits_for_it(kept: Kept) -> None:
    until = kept.clock.now() + timedelta(days=45)
    with kept.keeper() as keeper:
        keeper.look()
        kept.store.put(OTHER, b"new", locked_until=until)
        os.link(kept.folder / OTHER, kept.folder / "tmp" / "put-abcdefgh")
        os.utime(kept.folder / OTHER, (kept.clock.now().timestamp(),) * 2)
        keeper.look()
        assert not kept.is_held(OTHER)
        (kept.folder / "tmp" / "put-abcdefgh").unlink()
        keeper.look()
    assert held_until(kept, OTHER) == until


def test_requests_are_removed_when_they_are_old_and_done_and_none_is_lost_by_a_crash(kept: Kept) -> None:
    requests = kept.folder / KEEPER_FOLDER / "requests"
    kept.look()
    until = kept.clock.now() + timedelta(days=45)
    kept.store.try_lock(PACK, until)
    (file,) = requests.iterdir()
    os.utime(file, (kept.clock.now().timestamp() - 7200,) * 2)
    keeper = kept.keeper()
    folder = keeper._tree.open_requests()
    assert keeper._requests.read(folder) == {PACK: int(until.timestamp())}
    os.close(folder)
    keeper.__exit__()
    assert file.exists(), "read, and then the keeper died"
    with kept.keeper() as second:
        second.look()
        assert held_until(kept, PACK) == until
        second.look()
    assert list(requests.iterdir()) == []


def set_ahead(clock: ManualClock, days: float) -> None:
    """Set the wall clock ahead while no time passes."""
    clock._start += timedelta(days=days)


def test_a_clock_that_is_set_ahead_ends_no_lock(kept: Kept) -> None:
    with kept.keeper() as keeper:
        keeper.look()
        set_ahead(kept.clock, 3650)
        for _ in range(23):
            kept.clock.advance(DAY_S)
            assert keeper.look().let_go == 0
            assert kept.is_held(PACK)
    for _ in range(100):
        set_ahead(kept.clock, 1)
        assert kept.look().let_go == 0, "nor does starting the keeper again"


def test_a_clock_that_is_set_back_ends_no_lock_either(kept: Kept) -> None:
    with kept.keeper() as keeper:
        keeper.look()
        kept.clock.advance(29 * DAY_S)
        keeper.look()
        set_ahead(kept.clock, -2000)
        kept.clock.advance(20 * DAY_S)
        assert keeper.look().let_go == 0
        set_ahead(kept.clock, 2000)
        kept.clock.advance(DAY_S)
        assert keeper.look().let_go == 4


def test_a_wrong_clock_does_not_hold_new_objects_for_ever(kept: Kept) -> None:
    with kept.keeper() as keeper:
        keeper.look()
        set_ahead(kept.clock, 36500)
        kept.store.put(OTHER, b"new")
        keeper.look()
        until = held_until(kept, OTHER)
        assert until is not None
        assert until <= kept.clock.now() - timedelta(days=36500 - 100)


def test_days_without_a_keeper_only_make_locks_longer_and_are_caught_up(kept: Kept) -> None:
    kept.look()
    set_ahead(kept.clock, 20)
    with kept.keeper() as keeper:
        assert keeper.look().behind_s == 20 * DAY_S
        for _ in range(80):
            kept.clock.advance(DAY_S)
            report = keeper.look()
        assert report.behind_s == 0
    assert not kept.is_held(PACK)


@pytest.mark.parametrize("at", range(1, 16))
def test_killed_at_any_change_of_a_flag_the_next_keeper_leaves_nothing_bare(kept: Kept, at: int) -> None:
    kept.flags.fail_at = at
    with contextlib.suppress(SystemExit):
        kept.look()
    kept.flags.fail_at = None
    kept.look()
    for key in (PACK, POINT, "keys/recovery.age", "holdfast.json"):
        assert kept.is_held(key)
        assert held_until(kept, key) == kept.clock.now() + timedelta(days=30)


def test_killed_while_letting_go_the_next_keeper_lets_go_of_the_rest(kept: Kept) -> None:
    keeper = kept.keeper()
    keeper.look()
    kept.clock.advance(31 * DAY_S)
    kept.flags.fail_at = kept.flags.changes + 2
    with pytest.raises(SystemExit):
        for _ in range(3):
            keeper.look()
    keeper.__exit__()
    kept.flags.fail_at = None
    with kept.keeper() as second:
        kept.clock.advance(DAY_S)
        second.look()
    assert not any(kept.is_held(key) for key in (PACK, POINT, "keys/recovery.age", "holdfast.json"))


def test_flags_that_somebody_took_away_come_back_with_the_next_full_look(kept: Kept) -> None:
    kept.look()
    descriptor = os.open(kept.folder / PACK, os.O_RDONLY)
    kept.flags.change(descriptor, off=0x10)
    os.close(descriptor)
    assert held_until(kept, PACK) is None, "the keeper's word alone is not believed where flags show"
    kept.look()
    assert kept.is_held(PACK)


def test_without_its_memory_the_keeper_holds_everything_for_the_whole_time(kept: Kept) -> None:
    kept.look()
    kept.clock.advance(20 * DAY_S)
    for path in sorted(kept.state.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    kept.look()
    assert kept.is_held(PACK)
    assert held_until(kept, PACK) == kept.clock.now() + timedelta(days=30)


def test_a_damaged_memory_is_told_and_lets_nothing_go(kept: Kept) -> None:
    kept.look()
    (file,) = kept.state.rglob("packs-3f")
    file.write_bytes(b"holdfast-keeper-held 1\nrubbish")
    with pytest.raises(KeeperStateDamaged, match="packs-3f") as told:
        kept.look()
    assert "Delete" in told.value.next_step()
    assert kept.is_held(PACK)


def test_most_groups_are_passed_over_when_nothing_has_changed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    with kept.keeper() as keeper:
        real: Callable[..., None] = keeper._keep

        def keep(group: str, *args: object, **options: object) -> None:
            looked.append(group)
            real(group, *args, **options)

        monkeypatch.setattr(keeper, "_keep", keep)
        keeper.look()
        assert sorted(looked) == ["packs-3f", "points-ab", "rest"]
        looked.clear()
        kept.clock.advance(60)
        keeper.look()
        assert looked == []
        kept.store.put("packs/3f/3f000000000000000000000000000000", b"new")
        keeper.look()
        assert looked == ["packs-3f"]
        looked.clear()
        kept.clock.advance(DAY_S)
        keeper.look()
        assert len(looked) == 3, "once a day everything is looked at"


def test_an_object_that_vanished_although_it_was_held_is_told(kept: Kept) -> None:
    kept.look()
    (kept.folder / PACK).unlink()
    assert kept.look().vanished == 1
    assert kept.look().vanished == 0


def test_the_word_says_what_is_held(kept: Kept) -> None:
    kept.look()
    word = parse_word((kept.folder / KEEPER_FOLDER / "word.json").read_bytes())
    assert (word.days, word.days_max, word.held_files, word.not_held, word.behind_s) == (30, 100, 4, 0, 0)
    assert word.time_s == int(kept.clock.now().timestamp())
    assert [info.key for info in kept.store.list("")] == sorted([PACK, POINT, "keys/recovery.age", "holdfast.json"])


def test_one_keeper_works_on_a_folder_at_a_time(kept: Kept) -> None:
    with kept.keeper(), pytest.raises(KeeperBusy):
        kept.keeper()
    kept.look()


@pytest.mark.parametrize(("days", "days_max"), [(0, 10), (11, 10), (10, 10_000)])
def test_times_that_nobody_can_mean_are_refused(kept: Kept, days: int, days_max: int) -> None:
    with pytest.raises(KeeperDaysInvalid):
        kept.keeper(days=days, days_max=days_max)


def test_a_place_that_cannot_be_kept_is_told_at_the_start(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2040, 1, 1, tzinfo=UTC))

    def start(folder: Path, flags: FakeFlags) -> Keeper:
        return Keeper(folder, state=tmp_path / "state", days=1, days_max=1, flags=flags, clock=clock)

    with pytest.raises(KeeperRefused, match="no such folder"):
        start(tmp_path / "missing", FakeFlags())
    with pytest.raises(KeeperRefused, match="not the folder of a repository"):
        start(tmp_path, FakeFlags())
    kept = Kept(tmp_path)
    with pytest.raises(KeeperRefused, match="does not know the flag"):
        start(kept.folder, FakeFlags(works=False))
    with pytest.raises(KeeperNotRoot):
        start(kept.folder, FakeFlags(allowed=False))
    (kept.folder / KEEPER_FOLDER / "requests").rmdir()
    (kept.folder / KEEPER_FOLDER / "held").rmdir()
    (kept.folder / KEEPER_FOLDER).rmdir()
    (kept.folder / KEEPER_FOLDER).symlink_to(tmp_path)
    with pytest.raises(KeeperRefused, match="not a folder"):
        start(kept.folder, FakeFlags())
