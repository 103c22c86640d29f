"""Sealed objects and derived keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import SeededEntropy
from holdfast.model import RepositoryId, VmUuid
from holdfast.repository.layout import ObjectKind, PackId
from holdfast.repository.sealing import KeyRing, SealBroken

REPOSITORY = RepositoryId("00112233445566778899aabbccddeeff")
KEYS = KeyRing(bytes(range(32)), repository=REPOSITORY)
NAME = "points/a/b"


def sealed(payload: bytes, *, kind: ObjectKind = ObjectKind.POINT, name: str = NAME) -> bytes:
    return KEYS.seal_object(payload, kind=kind, key=name, entropy=SeededEntropy(3))


@given(payload=st.binary(max_size=300) | st.binary(max_size=20).map(lambda piece: piece * 100))
def test_what_is_sealed_opens_to_the_same(payload: bytes) -> None:
    assert KEYS.open_object(sealed(payload), kind=ObjectKind.POINT, key=NAME) == payload


@given(payload=st.binary(min_size=1, max_size=100), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_breaks_the_seal(payload: bytes, place: float, bit: int) -> None:
    spoiled = bytearray(sealed(payload))
    spoiled[int(place * len(spoiled))] ^= 1 << bit
    with pytest.raises(SealBroken):
        KEYS.open_object(bytes(spoiled), kind=ObjectKind.POINT, key=NAME)


@given(keep=st.integers(0, 60))
def test_a_cut_object_does_not_open(keep: int) -> None:
    with pytest.raises(SealBroken):
        KEYS.open_object(sealed(b"payload")[:keep][:-1], kind=ObjectKind.POINT, key=NAME)


def test_an_object_opens_only_under_its_name_kind_key_and_repository() -> None:
    content = sealed(b"payload")
    other_key = KeyRing(bytes(32), repository=REPOSITORY)
    other_place = KeyRing(bytes(range(32)), repository=RepositoryId("ff" * 16))
    for keys, kind, name in [
        (KEYS, ObjectKind.POINT, "points/a/c"),
        (KEYS, ObjectKind.LEASE, NAME),
        (other_key, ObjectKind.POINT, NAME),
        (other_place, ObjectKind.POINT, NAME),
    ]:
        with pytest.raises(SealBroken):
            keys.open_object(content, kind=kind, key=name)


def test_two_objects_of_the_same_content_share_nothing() -> None:
    entropy = SeededEntropy(4)
    first, second = (KEYS.seal_object(b"x" * 64, kind=ObjectKind.LEASE, key=NAME, entropy=entropy) for _ in range(2))
    assert first[24:] != second[24:]


def test_every_purpose_has_a_key_of_its_own() -> None:
    keys = [KEYS.derive(purpose) for purpose in ("block-id", "node-id", "name", "config", "fingerprint")]
    keys += [KEYS.derive("object", context=bytes(16))]
    keys += [KEYS.derive("pack", context=bytes(16)), KEYS.derive("pack", context=b"\1" + bytes(15))]
    assert len(set(keys)) == len(keys)


def test_names_of_vms_and_points_repeat_only_for_the_same() -> None:
    web, mail = VmUuid("web"), VmUuid("mail")
    assert KEYS.vm_folder(web) == KEYS.vm_folder(web) != KEYS.vm_folder(mail)
    suffixes = [
        KEYS.point_suffix(run=run, vm=vm, attempt=attempt)
        for run, vm, attempt in [("r-1", web, 0), ("r-2", web, 0), ("r-1", mail, 0), ("r-1", web, 1)]
    ]
    assert len(set(suffixes)) == 4


def test_a_pack_id_chooses_the_key_of_its_frames() -> None:
    nonce = bytes(12)
    first, second = (KEYS.pack_cipher(PackId(bytes([number]) * 16)) for number in (1, 2))
    assert first.encrypt(nonce, b"same", None) != second.encrypt(nonce, b"same", None)
