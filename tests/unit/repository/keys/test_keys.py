"""Key holders: each opens the repository alone, nobody else does, and the last one stays."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from holdfast.core import ManualClock, Secret, SeededEntropy
from holdfast.repository import (
    HolderExists,
    HolderRefused,
    HolderUnknown,
    IdentityHolder,
    IdentityUnlock,
    LastHolder,
    NewHolder,
    OpenHolder,
    OpenUnlock,
    PassphraseHolder,
    PassphraseUnlock,
    Repository,
    Unlock,
    WrongKey,
    create_repository,
    new_recovery_key,
    open_repository,
)
from holdfast.storage import MemoryStore, ObjectStore

RECOVERY = new_recovery_key()
RECOVERY_HOLDER = IdentityHolder("recovery", RECOVERY.public)
RECOVERY_UNLOCK = IdentityUnlock(RECOVERY.secret)


def created(store: ObjectStore, *holders: NewHolder, seed: int = 1) -> Repository:
    return create_repository(store, holders=holders, clock=ManualClock(), entropy=SeededEntropy(seed), workers=0)


def opened(store: ObjectStore, unlock: Unlock) -> Repository:
    return open_repository(store, unlock=unlock, clock=ManualClock(), entropy=SeededEntropy(2), workers=0)


def test_a_recovery_key_opens_the_repository() -> None:
    store = MemoryStore()
    first = created(store, RECOVERY_HOLDER)
    again = opened(store, RECOVERY_UNLOCK)
    assert (again.id, again.fingerprint, again.created_at) == (first.id, first.fingerprint, first.created_at)


def test_another_key_does_not_and_neither_does_none() -> None:
    store = MemoryStore()
    created(store, RECOVERY_HOLDER)
    for unlock in (IdentityUnlock(new_recovery_key().secret), OpenUnlock(), IdentityUnlock(Secret("nonsense"))):
        with pytest.raises(WrongKey) as caught:
            opened(store, unlock)
        assert RECOVERY.secret.reveal() not in str(caught.value)


@pytest.mark.slow(reason="a passphrase costs a second each time, by design")
def test_a_passphrase_opens_the_repository_and_a_wrong_one_does_not() -> None:
    store = MemoryStore()
    created(store, RECOVERY_HOLDER, PassphraseHolder("me", Secret("correct horse")))
    assert opened(store, PassphraseUnlock(Secret("correct horse"))).id == opened(store, RECOVERY_UNLOCK).id
    with pytest.raises(WrongKey, match="the passphrase does not open"):
        opened(store, PassphraseUnlock(Secret("wrong horse")))


def test_an_ssh_key_opens_the_repository() -> None:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    store = MemoryStore()
    created(store, IdentityHolder("laptop", public))
    assert opened(store, IdentityUnlock(Secret(text))).keys.holders()[0].kind == "ssh key"


def test_holders_come_and_go_without_touching_data() -> None:
    store = MemoryStore()
    repository = created(store, RECOVERY_HOLDER)
    machine = new_recovery_key()
    before = set(store.snapshot())
    repository.keys.add(IdentityHolder("machine", machine.public))
    added = set(store.snapshot()) - before
    assert {each for each in added if not each.startswith("holders/")} == {"keys/machine.age"}
    assert [(each.name, each.kind) for each in repository.keys.holders()] == [
        ("machine", "age key"),
        ("recovery", "age key"),
    ]
    repository.keys.remove("recovery")
    with pytest.raises(WrongKey):
        opened(store, RECOVERY_UNLOCK)
    assert opened(store, IdentityUnlock(machine.secret)).id == repository.id


def test_the_last_holder_stays() -> None:
    store = MemoryStore()
    repository = created(store, RECOVERY_HOLDER)
    with pytest.raises(LastHolder):
        repository.keys.remove("recovery")
    assert opened(store, RECOVERY_UNLOCK).id == repository.id
    with pytest.raises(HolderUnknown):
        repository.keys.remove("nobody")


def test_a_holder_is_not_replaced() -> None:
    store = MemoryStore()
    repository = created(store, RECOVERY_HOLDER)
    with pytest.raises(HolderExists):
        repository.keys.add(IdentityHolder("recovery", new_recovery_key().public))
    assert opened(store, RECOVERY_UNLOCK).id == repository.id


@pytest.mark.parametrize(
    "holder",
    [
        IdentityHolder("../etc", RECOVERY.public),
        IdentityHolder("Capital", RECOVERY.public),
        IdentityHolder("open", RECOVERY.public),
        IdentityHolder("", RECOVERY.public),
        IdentityHolder("x", "age1nonsense"),
        IdentityHolder("x", "ssh-ed25519 nonsense"),
        IdentityHolder("x", "ssh-rsa AAAA"),
        IdentityHolder("x", RECOVERY.secret.reveal()),
        PassphraseHolder("x", Secret("")),
    ],
)
def test_a_holder_that_cannot_be_one_is_refused(holder: NewHolder) -> None:
    store = MemoryStore()
    with pytest.raises(HolderRefused):
        created(store, holder)
    assert store.snapshot() == {}


def test_an_open_repository_asks_for_nothing_and_says_that_it_is_open() -> None:
    store = MemoryStore()
    repository = created(store, OpenHolder())
    assert [(each.name, each.kind) for each in opened(store, OpenUnlock()).keys.holders()] == [("open", "open")]
    repository.keys.add(RECOVERY_HOLDER)
    repository.keys.remove("open")
    with pytest.raises(WrongKey):
        opened(store, OpenUnlock())


def test_a_key_file_of_another_repository_does_not_open_this_one() -> None:
    store, foreign = MemoryStore(), MemoryStore()
    created(store, RECOVERY_HOLDER, seed=1)
    created(foreign, RECOVERY_HOLDER, seed=7)
    store.restore({**store.snapshot(), "keys/recovery.age": foreign.get("keys/recovery.age")})
    with pytest.raises(WrongKey):
        opened(store, RECOVERY_UNLOCK)


def test_a_repository_put_in_place_of_another_shows_another_fingerprint() -> None:
    first, second = created(MemoryStore(), OpenHolder(), seed=1), created(MemoryStore(), OpenHolder(), seed=2)
    assert first.fingerprint != second.fingerprint
    assert len(first.fingerprint) == 16


def test_a_holder_file_that_is_garbage_is_listed_as_unreadable() -> None:
    store = MemoryStore()
    repository = created(store, RECOVERY_HOLDER)
    store.put("keys/broken.age", b"\xff\xfe")
    assert {each.name: each.kind for each in repository.keys.holders()}["broken"] == "unreadable"
    assert opened(store, RECOVERY_UNLOCK).id == repository.id
