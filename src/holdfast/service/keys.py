"""Who can open a repository: holders, the drill that proves a key, rotation of the data key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.core import Cancellation
from holdfast.repository import (
    HolderFacts,
    IdentityUnlock,
    NewHolder,
    Rotation,
    Unlock,
)
from holdfast.service.repositories import open_by_name, open_with
from holdfast.service.workspace import Workspace

__all__ = [
    "Drill",
    "add_holder",
    "change_secret",
    "drill",
    "list_holders",
    "remove_holder",
    "rotate_data_key",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What a key turned out to open."""

    holder: str
    """Whose key it is; empty when its holder was removed or left out, and only the past can be read with it."""
    is_current: bool
    """Whether it opens what is stored today too."""
    points: int
    """Restore points that were read with it."""
    unreadable_points: int
    others: tuple[HolderFacts, ...]
    """Who else could open the repository if this key were lost."""
    proven_at: datetime


def list_holders(workspace: Workspace, name: str, *, cancel: Cancellation) -> list[HolderFacts]:
    """Return who can open a repository, by name."""
    return open_by_name(workspace, name, cancel=cancel).keys.holders()


def add_holder(workspace: Workspace, name: str, holder: NewHolder, *, cancel: Cancellation) -> Sequence[HolderFacts]:
    """Let one more holder open the repository; return all of them."""
    repository = open_by_name(workspace, name, cancel=cancel)
    repository.keys.add(holder)
    return repository.keys.holders()


def remove_holder(workspace: Workspace, name: str, holder: str, *, cancel: Cancellation) -> Sequence[HolderFacts]:
    """Stop one holder from opening the repository; return those that remain."""
    repository = open_by_name(workspace, name, cancel=cancel)
    repository.keys.remove(holder)
    _forget_proofs(workspace, name, [holder])
    return repository.keys.holders()


def change_secret(workspace: Workspace, name: str, holder: NewHolder, *, cancel: Cancellation) -> datetime | None:
    """Give a holder another passphrase or key: the new one is proven to open before the old one goes.

    Return until when the old one opens the repository too, because its file is locked; None when it does not.
    """
    until = open_by_name(workspace, name, cancel=cancel).keys.change_secret(holder)
    _forget_proofs(workspace, name, [holder.name])
    return until


def drill(workspace: Workspace, name: str, unlock: Unlock, *, cancel: Cancellation) -> Drill:
    """Return what a key opens, by opening the repository with nothing else; remember that it was proven.

    ``WrongKey`` when it opens nothing. The key's public half is recorded for the next rotation of the data key.
    """
    opened = open_with(workspace, name, unlock, cancel=cancel)
    points, unreadable = opened.points(), opened.damaged_points()
    keys = open_by_name(workspace, name, cancel=cancel).keys
    holder = keys.recognise(unlock)
    now = workspace.clock.now()
    if holder is not None:
        config = workspace.registry.repository(name)
        proven = {**config.keys.proven, holder: now}
        workspace.registry.replace_repository(replace(config, keys=replace(config.keys, proven=proven)))
    others = tuple(each for each in keys.holders() if each.name != holder and each.is_current)
    return Drill(
        holder=holder or "",
        is_current=holder is not None,
        points=len(points),
        unreadable_points=len(unreadable),
        others=others,
        proven_at=now,
    )


def rotate_data_key(
    workspace: Workspace, name: str, *, goes_on: Sequence[NewHolder], leave_out: Collection[str], cancel: Cancellation
) -> Rotation:
    """Seal what is stored from now on with a new key, which all holders get but those that are left out.

    ``goes_on``: holders with a passphrase, or whose public key is not recorded. ``HolderUndecided``: one is missing.
    """
    repository = open_by_name(workspace, name, cancel=cancel)
    rotation = repository.keys.rotate(IdentityUnlock(workspace.vault.identity), goes_on=goes_on, leave_out=leave_out)
    _forget_proofs(workspace, name, rotation.left_out)
    # Opened again, so that this machine remembers the new epoch before anything else happens to the store.
    open_by_name(workspace, name, cancel=cancel)
    return rotation


def _forget_proofs(workspace: Workspace, name: str, holders: Collection[str]) -> None:
    """Forget that keys were proven which open nothing any more."""
    config = workspace.registry.repository(name)
    proven = {holder: moment for holder, moment in config.keys.proven.items() if holder not in holders}
    if len(proven) != len(config.keys.proven):
        workspace.registry.replace_repository(replace(config, keys=replace(config.keys, proven=proven)))
