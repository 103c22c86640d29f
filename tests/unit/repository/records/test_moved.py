"""Moves: followed one by one and in bulk alike, read whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.repository import NodeAddress, ObjectDamaged
from holdfast.repository.layout import PackId
from holdfast.repository.records.moved import Moves, read_moves, write_moves
from holdfast.repository.vault import Vault
from tests.support.repositories import World, key_ring

PACKS = [PackId(bytes([number]) * 15 + b"\0") for number in range(1, 7)]

places = st.builds(NodeAddress, st.sampled_from(PACKS), st.integers(0, 9))


def forward(moves: dict[NodeAddress, NodeAddress]) -> dict[NodeAddress, NodeAddress]:
    """Return those moves that lead to a later pack, so that none leads in a circle."""
    return {old: new for old, new in moves.items() if old.pack < new.pack}


def vault_of(world: World) -> Vault:
    return Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)


@given(st.dictionaries(places, places, max_size=40).map(forward))
def test_slots_are_followed_in_bulk_as_one_by_one(known: dict[NodeAddress, NodeAddress]) -> None:
    moves = Moves(known)
    slots = np.arange(10)
    for pack in PACKS:
        found = {}
        for group in moves.resolve_slots(pack, slots):
            found.update(
                {int(at): NodeAddress(group.pack, int(slot)) for at, slot in zip(group.at, group.slots, strict=True)}
            )
        assert found == {slot: moves.resolve(NodeAddress(pack, slot)) for slot in range(10)}


@given(st.dictionaries(places, places, max_size=40).map(forward), st.sets(st.sampled_from(PACKS)))
def test_a_pack_is_needed_when_what_a_needed_pack_held_lies_there(
    known: dict[NodeAddress, NodeAddress], emptied: set[PackId]
) -> None:
    moves = Moves(known, emptied=emptied)
    for pack in PACKS:
        final = {moves.resolve(old).pack for old in known if old.pack == pack}
        assert moves.targets(pack) == final - emptied
        assert moves.holders_of([pack]) == (final | {pack}) - emptied


def test_what_was_written_is_read_and_the_last_name_wins() -> None:
    world = World()
    vault = vault_of(world)
    one, two, three = (NodeAddress(pack, 3) for pack in PACKS[:3])
    write_moves(vault, {one: two})
    world.clock.advance(1)
    write_moves(vault, {one: three}, emptied=[PACKS[0]])
    moves = read_moves(vault)
    assert moves.resolve(one) == three
    assert (set(moves.emptied), len(moves), len(moves.records)) == ({PACKS[0]}, 1, 2)


def test_moves_are_read_again_when_something_is_missing() -> None:
    vault = vault_of(World())
    one, two = (NodeAddress(pack, 3) for pack in PACKS[:2])
    moves = read_moves(vault)
    assert not moves.reload()
    write_moves(vault, {one: two})
    assert moves.reload()
    assert moves.resolve(one) == two
    assert not Moves({one: two}).reload()


def test_a_circle_is_damage() -> None:
    one, two = (NodeAddress(pack, 3) for pack in PACKS[:2])
    moves = Moves({one: two, two: one})
    with pytest.raises(ObjectDamaged, match="circle"):
        moves.resolve(one)
    with pytest.raises(ObjectDamaged, match="circle"):
        moves.resolve_slots(PACKS[0], np.array([3]))


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_record_that_cannot_be_read_is_an_error(content: bytes) -> None:
    vault = vault_of(World())
    vault.store.put("moved/20260101T000000Z-00000000", content)
    with pytest.raises(ObjectDamaged, match="moved/20260101T000000Z-00000000"):
        read_moves(vault)
