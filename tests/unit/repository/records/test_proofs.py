"""Proofs: the latest of each pack counts, few objects hold many, and what cannot be believed is passed over."""

from __future__ import annotations

import msgspec
import numpy as np

from holdfast.repository.layout import PROOF_ROW, PROOFS_PREFIX, ObjectKind, PackId
from holdfast.repository.records.proofs import ProofWriter, read_proofs
from holdfast.repository.vault import Vault
from tests.support.repositories import World, key_ring

A, B, C, Z = (PackId(bytes([n]) * 16) for n in (1, 2, 3, 0))


def _vault(world: World) -> Vault:
    return Vault(world.memory, key_ring(world.memory), clock=world.clock, entropy=world.entropy)


def _times(vault: Vault, *packs: PackId) -> list[int]:
    times: list[int] = read_proofs(vault).checked_s(np.array(packs, dtype="V16")).tolist()
    return times


def test_the_latest_proof_of_a_pack_counts_whatever_the_order() -> None:
    vault = _vault(World())
    for began_s in (500, 900, 700):
        writer = ProofWriter(vault)
        writer.add(A, length_bytes=10, began_s=began_s)
        writer.add(Z, length_bytes=10, began_s=began_s + 1)
        writer.close()
    assert _times(vault, A, B, Z) == [900, 0, 901]


def test_without_proofs_nothing_was_checked() -> None:
    vault = _vault(World())
    assert _times(vault, A, B) == [0, 0]
    assert _times(vault) == []
    ProofWriter(vault).close()
    assert list(vault.names(PROOFS_PREFIX)) == []


def test_a_writer_replaces_its_own_object_and_begins_a_new_one_when_it_is_long() -> None:
    vault = _vault(World())
    writer = ProofWriter(vault)
    packs = [PackId(n.to_bytes(16, "big")) for n in range(1, 1100)]
    for number, pack in enumerate(packs, start=1):
        writer.add(pack, length_bytes=5, began_s=number)
        assert writer.is_due == (number % 8 == 0)
        if writer.is_due:
            writer.store()
            assert len(list(vault.names(PROOFS_PREFIX))) == 1 + (number > 1024)
    writer.close()
    assert _times(vault, *packs) == list(range(1, 1100))


def test_a_proof_is_due_after_a_while_even_when_packs_are_slow() -> None:
    world = World()
    writer = ProofWriter(_vault(world))
    world.clock.advance(61)
    assert not writer.is_due, "there is nothing to write"
    writer.add(A, length_bytes=5, began_s=1)
    assert writer.is_due


def test_many_objects_are_merged_without_packs_that_are_gone() -> None:
    vault = _vault(World())
    for number in range(70):
        writer = ProofWriter(vault)
        writer.add(A, length_bytes=5, began_s=1000 + number)
        writer.add(B, length_bytes=5, began_s=1)
        writer.store()
    assert len(list(vault.names(PROOFS_PREFIX))) == 70
    ProofWriter(vault).close(present=np.array([A, C], dtype="V16"))
    assert len(list(vault.names(PROOFS_PREFIX))) == 1
    assert _times(vault, A, B) == [1069, 0]


def test_an_object_that_cannot_be_read_costs_nothing_but_reading_and_goes() -> None:
    world = World()
    vault = _vault(world)
    for number in range(66):
        world.memory.put(f"{PROOFS_PREFIX}20260101T000000Z-{number:08x}", b"nonsense")
    writer = ProofWriter(vault)
    writer.add(A, length_bytes=5, began_s=7)
    writer.close()
    assert _times(vault, A) == [7]
    assert len(list(vault.names(PROOFS_PREFIX))) == 1


def test_a_proof_from_the_future_says_nothing() -> None:
    world = World()
    vault = _vault(world)
    now_s = int(world.clock.now().timestamp())
    for pack, began_s in ((A, now_s + 3 * 86400), (B, now_s + 3600)):
        writer = ProofWriter(vault)
        writer.add(pack, length_bytes=5, began_s=began_s)
        writer.close()
    assert _times(vault, A, B) == [0, now_s + 3600]


def test_rows_lie_as_the_page_says() -> None:
    vault = _vault(World())
    writer = ProofWriter(vault)
    writer.add(B, length_bytes=0x01020304, began_s=0x0A0B0C0D)
    writer.add(A, length_bytes=7, began_s=9)
    writer.close()
    (info,) = vault.names(PROOFS_PREFIX)
    record = msgspec.msgpack.decode(vault.read(info.key, kind=ObjectKind.PROOF))
    assert record == {
        "rows": A + bytes.fromhex("07000000 0900000000000000") + B + bytes.fromhex("04030201 0d0c0b0a00000000")
    }
    assert PROOF_ROW.itemsize == 28
