"""A repository with key holders who come and go, and somebody who kept an old key."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from holdfast.core import Cancellation, ManualClock, SeededEntropy
from holdfast.repository import (
    IdentityHolder,
    IdentityUnlock,
    NewHolder,
    Repository,
    RestorePoint,
    Rotation,
    Unlock,
    create_repository,
    new_recovery_key,
    open_repository,
)
from holdfast.repository.sealing import KeyRing
from holdfast.repository.vault import Vault
from holdfast.storage import MemoryStore, ObjectStore
from tests.support.repositories import TEST_SAFETY, World

MACHINE, OTHER, LEAVER = new_recovery_key(), new_recovery_key(), new_recovery_key()
HOLDERS = (
    IdentityHolder("machine", MACHINE.public),
    IdentityHolder("other", OTHER.public),
    IdentityHolder("leaver", LEAVER.public),
)
UNLOCK, OTHER_UNLOCK, LEAVER_UNLOCK = (IdentityUnlock(each.secret) for each in (MACHINE, OTHER, LEAVER))


class KeyedWorld(World):
    """A repository that a machine, another one and somebody who is going to leave can open."""

    def __init__(
        self,
        holders: Sequence[NewHolder] = HOLDERS,
        *,
        memory: MemoryStore | None = None,
        clock: ManualClock | None = None,
    ) -> None:
        self.memory = memory or MemoryStore()
        self.store: ObjectStore = self.memory
        self.clock = clock or ManualClock()
        self.entropy = SeededEntropy(1)
        self.cancel = Cancellation()
        self.workers = 0
        create_repository(
            self.store, holders=holders, clock=self.clock, entropy=self.entropy, workers=0, safety=TEST_SAFETY
        )
        self.repository = self.open(UNLOCK)

    def open(self, unlock: Unlock, *, store: ObjectStore | None = None) -> Repository:
        """Open the repository as another process would."""
        found = self.store if store is None else store
        return open_repository(
            found, unlock=unlock, clock=self.clock, entropy=self.entropy, workers=0, safety=TEST_SAFETY
        )

    def rotate(
        self,
        *goes_on: NewHolder,
        leave_out: Collection[str] = (),
        store: ObjectStore | None = None,
        unlock: Unlock = UNLOCK,
    ) -> Rotation:
        """Rotate as a process that does nothing else."""
        return self.open(unlock, store=store).keys.rotate(unlock, goes_on=goes_on, leave_out=leave_out)

    def back_up_as(self, unlock: Unlock, image: bytes, *, run: str) -> RestorePoint:
        """Back up as the process of one holder."""
        self.repository = self.open(unlock)
        return self.back_up(image, run=run)

    def old_vault(self) -> Vault:
        """Return the repository as somebody has it who kept the first key and nothing else."""
        text = self.open(LEAVER_UNLOCK)._vault.keys.held.keys[0]  # what a leaver may have copied
        keys = KeyRing(text, repository=self.repository.id)
        return Vault(self.store, keys, clock=self.clock, entropy=self.entropy)
