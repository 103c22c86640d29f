"""The keys of an open repository, for whoever decides who may open it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from holdfast.repository.keys.holders import add_holder, list_holders, record_public_key, remove_holder, replace_secret
from holdfast.repository.keys.keys import HolderFacts, NewHolder, Unlock
from holdfast.repository.keys.rotation import Rotation, rotate_data_key
from holdfast.repository.sealing import EpochNotHeld
from holdfast.repository.vault import Vault

__all__ = ["KeyDesk"]


class KeyDesk:
    """Who can open a repository, and with which data key it seals. Thread-safe."""

    def __init__(self, vault: Vault, *, unlock: Unlock | None, check_writable: Callable[[str], None]) -> None:
        self._vault = vault
        self._unlock = unlock
        self._check_writable = check_writable

    @property
    def epoch(self) -> int:
        """How often the data key was rotated, as far as the key in use knows."""
        return self._vault.keys.epoch

    @property
    def is_outdated(self) -> bool:
        """Whether the data key was rotated without the key in use: it reads what is older, and writes nothing."""
        held = self._vault.keys.held
        return held.epoch != held.in_force

    def fingerprint_of(self, epoch: int) -> str:
        """Return the sixteen hex digits by which the data key of an epoch is recognised; empty when it is not held."""
        try:
            return self._vault.keys.fingerprint_of(epoch)
        except EpochNotHeld:
            return ""

    def holders(self) -> list[HolderFacts]:
        """Return who can open the repository, by name."""
        return [each.facts for each in list_holders(self._vault, unlock=self._unlock)]

    def add(self, holder: NewHolder) -> None:
        """Let somebody else open the repository too. ``HolderExists``, ``HolderRefused``, ``HolderNotProven``."""
        self._check_writable("change the keys of")
        add_holder(self._vault, holder)

    def remove(self, name: str) -> None:
        """Remove a key holder. ``HolderUnknown``; ``LastHolder`` when nobody else could open it; ``HolderHeld``."""
        self._check_writable("change the keys of")
        remove_holder(self._vault, name)

    def change_secret(self, holder: NewHolder) -> datetime | None:
        """Give a holder another secret, never a moment without one. ``HolderUnknown``, ``HolderNotProven``.

        Return until when the old one opens the repository too, because its file is locked; None when it does not.
        """
        self._check_writable("change the keys of")
        return replace_secret(self._vault, holder)

    def recognise(self, unlock: Unlock) -> str | None:
        """Return the name of the holder whose file a secret opens; None when it opens none that is in force.

        The public key of an identity is recorded, so that the next rotation need not ask for it.
        """
        return record_public_key(self._vault, unlock)

    def rotate(self, unlock: Unlock, *, goes_on: Sequence[NewHolder], leave_out: Collection[str]) -> Rotation:
        """Begin a new data key for what is stored from now on; see ``rotate_data_key``. ``unlock`` must go on."""
        self._check_writable("change the keys of")
        return rotate_data_key(self._vault, goes_on, leave_out=leave_out, unlock=unlock)
