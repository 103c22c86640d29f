"""Records of holes: what they say is never missed, whatever is merged, replaced or damaged meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.repository.layout import PackId
from holdfast.repository.packs.pack_set import PackSet, as_ids
from holdfast.repository.records.holes import (
    HolesRecord,
    PackHoles,
    merge_holes,
    read_holes,
    require_holes,
    write_holes,
)
from holdfast.repository.vault import Vault
from holdfast.storage import MemoryStore, ObjectInfo, ObjectStore
from tests.support.repositories import TEST_SAFETY, World, key_ring

PACKS = [PackId(bytes([number]) * 15 + bytes([number % 2])) for number in range(1, 9)]


def vault_over(store: ObjectStore | None = None) -> tuple[World, Vault]:
    world = World()
    if store is not None:
        assert isinstance(store, MemoryStore)
        store.restore(world.memory.snapshot())
    keys = key_ring(world.memory)
    return world, Vault(store or world.memory, keys, clock=world.clock, entropy=world.entropy)


def holes(pack: PackId, slots: set[int], *, count: int = 20, freed_bytes: int = 0) -> PackHoles:
    dead = np.zeros(count, dtype=np.bool_)
    dead[list(slots)] = True
    return PackHoles(pack, dead, freed_bytes, 1000)


@given(
    st.dictionaries(
        st.sampled_from(PACKS), st.tuples(st.integers(1, 70), st.sets(st.integers(0, 69)), st.integers(0, 1 << 26))
    )
)
def test_a_record_says_what_was_written(said: dict[PackId, tuple[int, set[int], int]]) -> None:
    _, vault = vault_over()
    written = [
        holes(pack, {slot for slot in slots if slot < count}, count=count, freed_bytes=freed_bytes)
        for pack, (count, slots, freed_bytes) in said.items()
    ]
    write_holes(vault, written, punched=True)
    (record,) = read_holes(vault).records
    found = {each.pack: each for each in record.holes()}
    assert found.keys() == said.keys()
    for each in written:
        assert (found[each.pack].dead == each.dead).all()
        assert found[each.pack].freed_bytes == each.freed_bytes
    assert set(record.packs()) == set(said)


def test_slots_of_plans_and_of_holes_are_avoided_together() -> None:
    _, vault = vault_over()
    write_holes(vault, [holes(PACKS[0], {1, 2})], punched=True)
    write_holes(vault, [holes(PACKS[0], {2, 5}), holes(PACKS[1], {0})], punched=False)
    avoided = read_holes(vault).avoided()
    assert avoided.of_pack(PACKS[0]) == {1, 2, 5}
    assert avoided.of_pack(PACKS[1]) == {0}
    assert not avoided.meets([PACKS[2]])


def test_what_came_back_counts_once_although_records_repeat_it() -> None:
    _, vault = vault_over()
    write_holes(vault, [holes(PACKS[0], {1}, freed_bytes=4096)], punched=True)
    write_holes(vault, [holes(PACKS[0], {1, 2}, freed_bytes=12288)], punched=True)
    write_holes(vault, [holes(PACKS[0], {3}, freed_bytes=999999)], punched=False)
    assert read_holes(vault).freed_bytes(PackSet(PACKS[:2])).tolist() == [12288, 0]


def test_many_records_become_few_that_say_as_much_without_packs_that_are_gone() -> None:
    world, vault = vault_over()
    for number in range(40):
        world.clock.advance(1)
        write_holes(vault, [holes(PACKS[number % 4], {number % 20}), holes(PACKS[7], {1})], punched=True)
    before = read_holes(vault).avoided()
    merge_holes(vault, present=PackSet(PACKS[:4]))
    book = read_holes(vault)
    assert len(book.records) == 1
    for pack in PACKS[:4]:
        assert book.avoided().of_pack(pack) == before.of_pack(pack)
    assert not book.avoided().meets([PACKS[7]])


def test_a_record_of_packs_that_are_gone_goes_and_a_plan_stays() -> None:
    _, vault = vault_over()
    write_holes(vault, [holes(PACKS[0], {1})], punched=True)
    write_holes(vault, [holes(PACKS[0], {2})], punched=False)
    merge_holes(vault, present=PackSet(PACKS[1:]))
    assert [record.is_punched for record in read_holes(vault).records] == [False]


class MergedMeanwhile(MemoryStore):
    """A store in which somebody else does something right after the first listing of holes."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] | None = None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = list(super().list(prefix))
        if prefix == "holes/" and self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return iter(found)


def test_records_that_are_replaced_while_they_are_read_are_not_missed() -> None:
    store = MergedMeanwhile()
    world, vault = vault_over(store)
    first = write_holes(vault, [holes(PACKS[0], {1})], punched=True)
    second = write_holes(vault, [holes(PACKS[0], {2})], punched=True)

    def replace() -> None:
        world.clock.advance(1)
        write_holes(vault, [holes(PACKS[0], {1, 2})], punched=True)
        store.delete(first.key)
        store.delete(second.key)

    store.meanwhile = replace
    assert read_holes(vault).avoided().of_pack(PACKS[0]) == {1, 2}


@pytest.mark.parametrize("flip", range(0, 120, 7))
def test_a_flipped_bit_makes_a_record_damaged_and_harms_no_other(flip: int) -> None:
    _, vault = vault_over()
    store = vault.store
    assert isinstance(store, MemoryStore)
    write_holes(vault, [holes(PACKS[0], {1})], punched=True)
    broken = write_holes(vault, [holes(PACKS[1], {2})], punched=True)
    content = bytearray(store.get(broken.key))
    content[flip % len(content)] ^= 4
    store.restore({**store.snapshot(), broken.key: bytes(content)})
    book = read_holes(vault)
    assert book.damaged == (broken.key,)
    assert [set(record.packs()) for record in book.records] == [{PACKS[0]}]


def test_a_plan_counts_as_abandoned_only_when_its_collector_has_surely_stopped() -> None:
    world, vault = vault_over()
    record: HolesRecord = write_holes(vault, [holes(PACKS[0], {1})], punched=False)
    margin = timedelta(seconds=TEST_SAFETY.collection_s + TEST_SAFETY.clock_skew_s)
    assert not record.seems_abandoned(world.clock.now() + margin, TEST_SAFETY)
    assert record.seems_abandoned(world.clock.now() + margin + timedelta(seconds=1), TEST_SAFETY)


def test_the_flag_is_set_once_and_may_be_set_again() -> None:
    _, vault = vault_over()
    require_holes(vault)
    require_holes(vault)
    assert [info.key for info in vault.names("features/")] == ["features/write/holes"]


@given(st.sets(st.binary(min_size=16, max_size=16), max_size=30), st.sets(st.binary(min_size=16, max_size=16)))
def test_a_set_of_packs_behaves_as_a_set(one: set[bytes], other: set[bytes]) -> None:
    first = {PackId(each) for each in one}
    second = {PackId(each) for each in other} | set(list(first)[:3])
    packs = PackSet(first)
    assert set(packs) == first
    assert len(packs) == len(first)
    assert all(pack in packs for pack in first)
    assert set(packs.joined(PackSet(second))) == first | second
    assert set(packs.common(PackSet(second))) == first & second
    assert set(packs.without(PackSet(second))) == first - second


def test_packs_whose_ids_begin_alike_are_told_apart() -> None:
    alike = [PackId(b"12345678" + bytes([number]) * 8) for number in range(5)]
    packs = PackSet(alike[:3])
    assert [pack in packs for pack in alike] == [True, True, True, False, False]
    assert packs.find(as_ids(b"".join(alike))).tolist() == [0, 1, 2, -1, -1]


def test_ids_that_are_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        as_ids(b"x" * 17)
