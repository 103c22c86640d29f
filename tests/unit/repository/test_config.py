"""The description: its proof, its versions and its flags."""

from __future__ import annotations

import json

import pytest

from holdfast.core import MIB
from holdfast.repository import ConfigDamaged, NeedsNewerHoldfast
from holdfast.storage import ObjectMissing
from tests.support.repositories import World, image_of


def edited(**changes: object) -> World:
    """Return a world whose description was edited by somebody without the key."""
    world = World()
    fields = json.loads(world.store.get("holdfast.json"))
    fields.update(changes)
    world.memory.restore({**world.memory.snapshot(), "holdfast.json": json.dumps(fields).encode()})
    return world


@pytest.mark.parametrize(
    "changes",
    [
        {"compression": "small"},
        {"created_at": "2020-01-01T00:00:00Z"},
        {"pack_bytes_max": 32 * MIB},
        {"added_later": True},
        {"proof": ""},
        {"features_write": ["parity"]},
    ],
)
def test_any_change_without_the_key_is_noticed(changes: dict[str, object]) -> None:
    world = edited(**changes)
    with pytest.raises(ConfigDamaged, match=r"holdfast\.json: its proof"):
        world.reopen()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "something-else"},
        {"repository": "xyz"},
        {"repository": "00"},
        {"created_at": "yesterday"},
        {"version": "one"},
        {"compression": "brotli"},
    ],
)
def test_what_does_not_describe_a_repository_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigDamaged):
        edited(**changes).reopen()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": 2}, "format 2"),
        ({"block_bytes": 131072}, "sizes"),
        ({"leaf_blocks": 512}, "sizes"),
        ({"pack_bytes_max": 128 * MIB}, "sizes"),
        ({"features_read": ["parity"]}, "parity"),
    ],
)
def test_a_newer_repository_says_what_is_missing_here(changes: dict[str, object], named: str) -> None:
    with pytest.raises(NeedsNewerHoldfast, match=named):
        edited(**changes).reopen()


def test_an_unknown_read_flag_that_came_later_stops_reading() -> None:
    world = World()
    world.store.put("features/read/parity", b"")
    with pytest.raises(NeedsNewerHoldfast, match="parity"):
        world.reopen()


def test_an_unknown_write_flag_stops_changes_and_lets_restore() -> None:
    world = World()
    image = image_of({0: 1}, count=1)
    point = world.back_up(image, run="r-1")
    world.store.put("features/write/parity", b"")
    world.reopen()
    assert world.restore(point) == image
    before = world.memory.snapshot()
    for change in (
        lambda: world.begin("r-2"),
        lambda: world.repository.delete_point(point.id),
        lambda: world.collect(),
        lambda: world.repository.keys.remove("open"),
    ):
        with pytest.raises(NeedsNewerHoldfast, match="parity"):
            change()
    assert world.memory.snapshot() == before


def test_a_lost_description_is_no_repository_any_more() -> None:
    world = World()
    world.store.delete("holdfast.json")
    with pytest.raises(Exception, match="holds no repository") as caught:
        world.reopen()
    assert isinstance(caught.value.__cause__, ObjectMissing)
