"""The lock policy: what two machines change in it at the same time is both in force afterwards."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from holdfast.repository.records.immutability import LockPolicy, let_go, read_lock_policy, write_lock_policy
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectStore, Parts
from holdfast.storage.wrapper import StoreWrapper
from tests.support.repositories import World, key_ring

KEY = "keys/leaver.00000-00000000-00000000.age"


class Meanwhile(StoreWrapper):
    """A store in which something else happens right before a policy is put."""

    def __init__(self, inner: ObjectStore, event: Callable[[], object]) -> None:
        super().__init__(inner)
        self._events = [event]

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        if key.startswith("immutability/") and self._events:
            self._events.pop()()
        super().put(key, parts, locked_until=locked_until)


def vault_on(world: World, store: ObjectStore) -> Vault:
    return Vault(store, key_ring(world.memory), clock=world.clock, entropy=world.entropy)


@pytest.mark.parametrize("days_first", [True, False])
def test_of_two_changes_at_once_neither_is_lost(*, days_first: bool) -> None:
    world = World()
    plain = vault_on(world, world.memory)
    write_lock_policy(plain, days=30)

    def set_days(vault: Vault) -> LockPolicy:
        return write_lock_policy(vault, days=90)

    def leave(vault: Vault) -> None:
        let_go(vault, [KEY])

    first, second = (set_days, leave) if days_first else (leave, set_days)
    second(vault_on(world, Meanwhile(world.memory, lambda: first(plain))))
    policy = read_lock_policy(plain)
    assert policy is not None
    assert (policy.days, policy.let_go, policy.number) == (90, frozenset({KEY}), 3)
