"""What the keeper and a store tell each other reads back as it was written, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.keeper import HeldFile, KeeperWord, held_name, is_kept, parse_held, parse_word, request_line
from holdfast.keeper.exchange import format_held, format_word, parse_requests
from holdfast.keeper.kept_time import KeptTime

IDS = st.integers(0, 2**128 - 1).map("{:032x}".format)
KEYS = st.one_of(
    IDS.map(lambda id: f"packs/{id[:2]}/{id}"),
    IDS.map(lambda id: f"points/{id}/20261120T090820Z-0badcafe"),
    st.sampled_from(["holdfast.json", "keys/recovery.age", "features/write/immutability", "canary/20261120T090820Z-0"]),
)
TIMES = st.integers(0, 10**12 - 1)
HELD = st.dictionaries(KEYS, st.builds(HeldFile, TIMES, st.booleans()), max_size=20)


@given(held=HELD)
def test_lists_of_held_objects_read_back(held: dict[str, HeldFile]) -> None:
    assert parse_held(format_held(held)) == held
    assert all(held_name(key).replace("-", "").isalnum() for key in held)


@given(held=HELD, data=st.data())
def test_a_list_that_was_cut_short_or_altered_is_refused_or_says_nothing_new(
    held: dict[str, HeldFile], data: st.DataObject
) -> None:
    text = format_held(held)
    cut = data.draw(st.integers(0, len(text) - 1))
    try:
        found = parse_held(text[:cut])
    except ValueError:
        return
    assert found.items() <= held.items()


@given(wanted=st.lists(st.tuples(KEYS, TIMES), max_size=20), tail=st.binary(max_size=40))
def test_requests_read_back_whole_lines_only(wanted: list[tuple[str, int]], tail: bytes) -> None:
    text = b"".join(request_line(key, until_s) for key, until_s in wanted)
    assert list(parse_requests(text + tail.replace(b"\n", b""))) == wanted


@given(text=st.binary(max_size=400))
def test_nothing_that_is_not_a_request_is_taken_for_one(text: bytes) -> None:
    for key, until_s in parse_requests(text):
        assert is_kept(key)
        assert f"{key}\n".encode() in text
        assert until_s >= 0


@pytest.mark.parametrize(
    "key",
    [
        "",
        "packs/3f/../../etc/passwd",
        "packs/3f/3F9a4c1d2e3f405162738495a6b7c8d9",
        "keys/../holdfast.json",
        "keys/.hidden",
        "keys/a/b",
        "/holdfast.json",
        "holdfast.json\n",
        "leases/3f9a4c1d2e3f405162738495a6b7c8d9/00000001",
        "tmp/put-abcdefgh",
        "index/20261120T090820Z-0badcafe",
    ],
)
def test_names_that_are_not_to_be_held_are_not(key: str) -> None:
    assert not is_kept(key)


@given(numbers=st.lists(st.integers(0, 2**40), min_size=6, max_size=6))
def test_the_word_reads_back(numbers: list[int]) -> None:
    word = KeeperWord(**dict(zip(KeeperWord.__slots__, numbers, strict=True)))
    assert parse_word(format_word(word)) == word


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"version": 2}', b'{"version": 1, "days": "30"}', b"\xff"])
def test_what_is_no_word_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_word(text)


@given(
    steps=st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9)), max_size=30),
    restarts=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_the_keepers_time_never_goes_back_nor_runs_away_whatever_the_clock_does(
    steps: list[tuple[float, float]], restarts: list[bool]
) -> None:
    wall_s, monotonic_s, ran_s = 2e9, 0.0, 0.0
    time = KeptTime(last_s=None, wall_s=wall_s, monotonic_s=0.0)
    start_s = now_s = time.advance(wall_s=wall_s, monotonic_s=0.0)
    for (passed_s, jump_s), is_restart in zip(steps, restarts, strict=False):
        monotonic_s += passed_s
        wall_s += passed_s + jump_s
        if is_restart:
            time = KeptTime(last_s=now_s, wall_s=wall_s, monotonic_s=monotonic_s)
        else:
            ran_s += passed_s
        before_s, now_s = now_s, time.advance(wall_s=wall_s, monotonic_s=monotonic_s)
        assert before_s <= now_s <= max(before_s, wall_s)
        assert now_s - start_s <= 1.25 * ran_s + 1e-3
