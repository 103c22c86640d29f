"""Known blocks: found by locality, in bounded memory, never in a pack that may go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from blake3 import blake3

from holdfast.core import BLOCK_BYTES
from holdfast.repository.layout import SAMPLE_MASK, TRAILER_ROW, FrameKind, PackId, pack_key
from holdfast.repository.packs import index
from holdfast.repository.packs.entries import PackNumbers, place_of
from holdfast.repository.packs.index import IndexedPack, list_index_heads, read_indexed_trailer, write_index
from holdfast.repository.vault import Vault
from holdfast.repository.writing.known import KnownBlocks
from tests.support.hand_packs import data, put_pack
from tests.support.repositories import World, key_ring


def a_vault() -> Vault:
    world = World()
    return Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)


def blocks_of(vault: Vault, count: int, *, sampled: bool, first: int = 0) -> list[bytes]:
    """Return blocks that the index samples, or none of them."""
    found: list[bytes] = []
    number = first * 100_000
    while len(found) < count:
        block = number.to_bytes(8, "little") + bytes(BLOCK_BYTES - 8)
        if (blake3(block, key=vault.keys.block_id_key).digest()[0] & SAMPLE_MASK == 0) == sampled:
            found.append(block)
        number += 1
    return found


def ids_of(vault: Vault, blocks: Sequence[bytes]) -> list[bytes]:
    return [blake3(block, key=vault.keys.block_id_key).digest() for block in blocks]


def indexed(vault: Vault, *packs: PackId) -> None:
    trailers = [vault.shelf.read_trailer(pack) for pack in packs]
    write_index(vault, [IndexedPack(each, vault.shelf.adopt(each).trailer.rows) for each in trailers])


def known_in(
    vault: Vault, *, blocks_max: int = 1000, may_use: Callable[[PackId], bool] = lambda pack: True
) -> tuple[KnownBlocks, PackNumbers]:
    numbers = PackNumbers()
    return KnownBlocks(vault, numbers, may_use=may_use, blocks_max=blocks_max), numbers


def pack_of(vault: Vault, blocks: Sequence[bytes], *, seed: int) -> PackId:
    return put_pack(vault.store, vault.keys, [data(vault.keys, block) for block in blocks], seed=seed)


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample small packs as if they were large."""
    monkeypatch.setattr(index, "_SAMPLES_PER_PACK_MIN", 0)


def test_a_small_pack_is_sampled_densely_so_that_an_increment_is_found_again() -> None:
    vault = a_vault()
    blocks = blocks_of(vault, 40, sampled=False)
    indexed(vault, pack_of(vault, blocks, seed=19))
    known, _ = known_in(vault)
    assert None not in known.find(ids_of(vault, blocks))


def test_a_large_pack_has_one_sample_in_64_and_no_more() -> None:
    rows = np.zeros(4096, dtype=TRAILER_ROW)
    rows["kind"] = FrameKind.DATA
    ids = b"".join(bytes([n % 256]) + n.to_bytes(31, "little") for n in range(4096))
    rows["id"] = np.frombuffer(ids, dtype="V32")
    assert len(index.sample_rows(rows, 0)) == 4096 // 64


@pytest.mark.usefixtures("sparse")
def test_one_sampled_block_leads_to_its_neighbours_and_to_the_next_pack() -> None:
    vault = a_vault()
    first = [*blocks_of(vault, 1, sampled=True), *blocks_of(vault, 2, sampled=False)]
    second = blocks_of(vault, 2, sampled=False, first=1)
    third = blocks_of(vault, 1, sampled=False, first=2)
    packs = [pack_of(vault, blocks, seed=seed) for seed, blocks in enumerate([first, second, third], start=20)]
    indexed(vault, *packs)
    known, numbers = known_in(vault)
    assert known.find(ids_of(vault, second)) == [None, None], "without a sample nothing leads there"
    found = known.find(ids_of(vault, [*first, *second, *third]))
    places = [None if entry is None else place_of(entry) for entry in found]
    one, two = numbers.number(packs[0]), numbers.number(packs[1])
    assert places == [(one, 0), (one, 1), (one, 2), (two, 0), (two, 1), None]
    assert numbers.length_bytes(one) == vault.store.size(pack_key(packs[0]))


def test_a_pack_that_may_not_be_used_is_not_found_but_another_copy_is() -> None:
    vault = a_vault()
    blocks = blocks_of(vault, 1, sampled=True)
    forbidden, allowed = pack_of(vault, blocks, seed=30), pack_of(vault, blocks, seed=31)
    indexed(vault, forbidden)
    known, _ = known_in(vault, may_use=lambda pack: pack != forbidden)
    assert known.find(ids_of(vault, blocks)) == [None]
    indexed(vault, allowed)
    known, numbers = known_in(vault, may_use=lambda pack: pack != forbidden)
    (entry,) = known.find(ids_of(vault, blocks))
    assert entry is not None
    assert place_of(entry) == (numbers.number(allowed), 0)


def test_a_damaged_pack_is_passed_over() -> None:
    vault = a_vault()
    blocks = blocks_of(vault, 1, sampled=True)
    pack = pack_of(vault, blocks, seed=32)
    indexed(vault, pack)
    vault.store.delete(pack_key(pack))
    vault.shelf.forget(pack)
    known, _ = known_in(vault)
    assert known.find(ids_of(vault, blocks)) == [None]
    assert known.find(ids_of(vault, blocks)) == [None]


@pytest.mark.usefixtures("sparse")
def test_the_table_stays_within_its_bound_and_finds_again_what_it_dropped() -> None:
    vault = a_vault()
    sampled = blocks_of(vault, 4, sampled=True)
    groups = [[sampled[number], *blocks_of(vault, 3, sampled=False, first=number + 1)] for number in range(4)]
    packs = [pack_of(vault, group, seed=40 + number) for number, group in enumerate(groups)]
    for pack in packs:
        indexed(vault, pack)
    known, _ = known_in(vault, blocks_max=8)
    for _ in range(2):
        for group in groups:
            assert None not in known.find(ids_of(vault, group))
    assert known.find(ids_of(vault, groups[0][1:])) == [None] * 3, "its pack was dropped for newer ones"


def test_an_index_repeats_the_trailers_of_its_packs() -> None:
    vault = a_vault()
    pack = pack_of(vault, blocks_of(vault, 3, sampled=False), seed=50)
    indexed(vault, pack)
    (head,), damaged = list_index_heads(vault)
    assert damaged == []
    assert head.pack_ids() == [pack]
    assert read_indexed_trailer(vault, head, 0) == vault.shelf.read_trailer(pack)


def test_a_large_index_is_read_in_two_requests() -> None:
    vault = a_vault()
    pack = pack_of(vault, blocks_of(vault, 1, sampled=True), seed=51)
    trailer = vault.shelf.read_trailer(pack)
    rows = vault.shelf.adopt(trailer).trailer.rows
    write_index(vault, [IndexedPack(trailer, rows)] * 3000)
    (head,), _ = list_index_heads(vault)
    assert len(head.packs) == len(head.samples) == 3000


def test_garbage_and_indexes_of_others_are_told_apart_from_sound_ones() -> None:
    vault = a_vault()
    pack = pack_of(vault, blocks_of(vault, 1, sampled=False), seed=52)
    indexed(vault, pack)
    (sound,) = [info.key for info in vault.names("index/")]
    content = vault.store.get(sound)
    for number, garbage in enumerate([b"", b"x" * 7, b"x" * 80, content, content[:-8] + b"HFIT\xff\xff\xff\x7f"]):
        vault.store.put(f"index/garbage-{number}", garbage)
    heads, damaged = list_index_heads(vault)
    assert [head.key for head in heads] == [sound]
    assert len(damaged) == 5


def test_a_disk_that_is_read_in_order_is_found_pack_after_pack() -> None:
    vault = a_vault()
    sampled = blocks_of(vault, 4, sampled=True)
    # The sampled block stands last in its pack, so only its neighbour can have led there before.
    groups = [[*blocks_of(vault, 3, sampled=False, first=number + 1), sampled[number]] for number in range(4)]
    indexed(vault, *(pack_of(vault, group, seed=70 + number) for number, group in enumerate(groups)))
    known, _ = known_in(vault)
    assert None not in known.find(ids_of(vault, groups[0]))
    for group in groups[1:]:
        assert None not in [known.find([id])[0] for id in ids_of(vault, group)]
