"""Rotation of the data key: a new epoch begins, for those who go on. Nothing that is stored is touched.

Invariant: nothing is removed before the new epoch has begun, and it begins by one create-only put. So a crash at any
operation leaves a repository that everybody can open who could before, or everybody who goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from holdfast.core import ExitStatus, HoldfastError
from holdfast.repository import layout
from holdfast.repository.config import KEY_EPOCHS, set_read_flag
from holdfast.repository.keys.epochs import begin_epoch, epoch_in_force, hold_keys
from holdfast.repository.keys.holders import (
    Holder,
    HolderNotProven,
    drop_files,
    list_holders,
    store_holder,
    tidy_holders,
)
from holdfast.repository.keys.keys import (
    FIRST_SERIAL,
    HolderFile,
    HolderRefused,
    HolderUnknown,
    IdentityHolder,
    LastHolder,
    NewHolder,
    PassphraseHolder,
    PassphraseUnlock,
    Unlock,
    holder_file,
    list_holder_files,
    open_holder_file,
)
from holdfast.repository.sealing import KEY_BYTES, HeldKeys, KeyRing
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectExists, ObjectMissing

__all__ = ["HolderUndecided", "RotatedMeanwhile", "Rotation", "RotationUseless", "rotate_data_key"]


class HolderUndecided(HoldfastError):
    """A key holder is neither left out of the rotation, nor is it known which key the holder has."""

    code = "repository.holder-undecided"
    exit_status = ExitStatus.USAGE
    effect = "The data key was not rotated; nothing was changed."
    advice = "Give the holder's public key or passphrase, or leave the holder out by name."

    def __init__(self, *, name: str, kind: str) -> None:
        super().__init__(f"key holder {name!r} ({kind}): what opens it is needed to give it the new key")
        self.name, self.kind = name, kind


class RotatedMeanwhile(HoldfastError):
    """Another program rotated the data key, or changed the key holders, at the same time."""

    code = "repository.rotated-meanwhile"
    exit_status = ExitStatus.BUSY
    effect = "This rotation did not happen; the other change did."
    advice = "Look at 'holdfast repository key list', and rotate again if it is still needed."

    def __init__(self, *, what: str) -> None:
        super().__init__(f"the data key was not rotated: {what}")
        self.what = what


class RotationUseless(HoldfastError):
    """A repository that everybody can open has no data key to protect, or has used up all its epochs."""

    code = "repository.rotation-useless"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed."
    advice = "Remove the holder 'open' first; or, after 2,047 rotations, create a new repository."

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"the data key was not rotated: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a rotation did."""

    epoch: int
    goes_on: tuple[str, ...]
    left_out: tuple[str, ...]
    locked_files: int
    """Files of key holders that the store does not let go of yet; they open what is older only."""
    untidy: str
    """Why files of key holders could not be removed that are over; the next change of holders does. Empty otherwise."""


def rotate_data_key(
    vault: Vault, goes_on: Sequence[NewHolder], *, leave_out: Collection[str], unlock: Unlock
) -> Rotation:
    """Begin a new epoch for the holders that go on; what is sealed from now on opens for them only.

    Holders whose public key is recorded need not be named. Returns when ``unlock`` opens the new epoch.
    ``HolderUndecided``, ``HolderUnknown``, ``HolderRefused``, ``LastHolder``, ``RotatedMeanwhile``,
    ``RotationUseless``, ``HolderNotProven``.
    """
    repository = vault.keys.repository
    vault.keys.adopt(hold_keys(vault.store, unlock, repository=repository))
    _mend_lost_epoch(vault)
    vault.keys.check_may_seal()
    tidy_holders(vault)
    holders = list_holders(vault, unlock=unlock)
    chosen = _choose(vault, holders, goes_on, leave_out=leave_out)
    held = vault.keys.held
    epoch, attempt = held.epoch + 1, vault.entropy.token_bytes(4).hex()
    if epoch > layout.EPOCH_MAX:
        raise RotationUseless(reason=f"it was rotated {held.epoch} times")
    keys = (*held.keys[:epoch], vault.entropy.token_bytes(KEY_BYTES))
    new = _next_vault(vault, HeldKeys(keys=keys, epoch=epoch, attempt=attempt, in_force=epoch))
    set_read_flag(vault.store, KEY_EPOCHS)
    made: list[HolderFile] = []
    try:
        for holder in chosen:
            file = holder_file(holder, epoch=epoch, attempt=attempt, serial=FIRST_SERIAL)
            made.append(file)
            store_holder(new, holder, file)
        _check_before(vault, holders, unlock=unlock, made=made)
        begin_epoch(new, epoch=epoch, attempt=attempt)
    except ObjectExists as cause:
        drop_files(vault, made)
        raise RotatedMeanwhile(what="another program began a new epoch") from cause
    except ObjectMissing as cause:
        drop_files(vault, made)
        raise _why_gone(vault, made, epoch=epoch, key=cause.key) from cause
    except (RotatedMeanwhile, HolderRefused):
        drop_files(vault, made)
        raise
    # Nobody can be given a new key who was added at the very last moment; that must be told.
    late = _added_since(list_holder_files(vault.store), holders, held)
    vault.keys.adopt(hold_keys(vault.store, unlock, repository=repository))
    locked, untidy = 0, ""
    try:
        locked = tidy_holders(vault)
    except HoldfastError as error:
        # The epoch has begun, and that is what must be told.
        untidy = str(error)
    names = {each.name for each in chosen}
    return Rotation(
        epoch=epoch,
        goes_on=tuple(sorted(names)),
        left_out=(*(each.facts.name for each in holders if each.facts.name not in names), *late),
        locked_files=locked,
        untidy=untidy,
    )


def _why_gone(vault: Vault, made: Sequence[HolderFile], *, epoch: int, key: str) -> HoldfastError:
    """Return what it means that a file which was stored just now is gone."""
    if epoch_in_force(vault.store) >= epoch:
        # Whoever begins an epoch removes the files of other attempts at it.
        return RotatedMeanwhile(what="another program began a new epoch")
    name = next((each.holder for each in made if each.key == key), "")
    if not any(each.holder == name for each in list_holder_files(vault.store)):
        return RotatedMeanwhile(what=f"the key holder {name!r} was removed")
    return HolderNotProven(name=name, key=key)


def _mend_lost_epoch(vault: Vault) -> None:
    """Store the object of the last epoch again, if it is gone; whoever has its key knows what it said."""
    held = vault.keys.held
    if held.is_lost and held.epoch == held.in_force:
        mended = replace(held, is_lost=False)
        with contextlib.suppress(ObjectExists):
            begin_epoch(_next_vault(vault, mended), epoch=held.epoch, attempt=held.attempt)
        vault.keys.adopt(mended)


def _next_vault(vault: Vault, held: HeldKeys) -> Vault:
    """Return the vault of an epoch that has not begun."""
    found = Vault(
        vault.store, KeyRing(held, repository=vault.keys.repository), clock=vault.clock, entropy=vault.entropy
    )
    found.lock_terms = vault.lock_terms
    return found


def _choose(
    vault: Vault, holders: Sequence[Holder], goes_on: Sequence[NewHolder], *, leave_out: Collection[str]
) -> list[NewHolder]:
    """Return every holder that goes on, with what its file is made for."""
    current = {each.facts.name: each for each in holders if each.facts.is_current}
    if not current:
        raise RotatedMeanwhile(what="another program began a new epoch")
    named = {each.name: each for each in goes_on}
    for name in (*named, *leave_out):
        if name not in current:
            raise HolderUnknown(name=name)
    chosen: list[NewHolder] = []
    for name, holder in current.items():
        if holder.facts.kind == "open":
            raise RotationUseless(reason="everybody who can read the store can open this repository")
        if name in leave_out:
            continue
        wanted = named.get(name)
        if wanted is None and holder.facts.public_key:
            wanted = IdentityHolder(name, holder.facts.public_key)
        if wanted is None and not any(each == holder.file for each in list_holder_files(vault.store)):
            # Its record went with its file.
            raise RotatedMeanwhile(what=f"the key holder {name!r} was changed")
        if wanted is None:
            raise HolderUndecided(name=name, kind=holder.facts.kind)
        _check_same(vault, holder, wanted)
        chosen.append(wanted)
    if not chosen:
        raise LastHolder(name=", ".join(leave_out))
    return chosen


def _check_same(vault: Vault, holder: Holder, wanted: NewHolder) -> None:
    """Return when ``wanted`` is the holder that there is, as far as can be told: a typing error would lock it out."""
    name = holder.facts.name
    if isinstance(wanted, PassphraseHolder) != (holder.facts.kind == "passphrase"):
        raise HolderRefused(name=name, reason=f"it is a holder of kind {holder.facts.kind}")
    if isinstance(wanted, PassphraseHolder):
        unlock = PassphraseUnlock(wanted.passphrase)
        if open_holder_file(holder.content, unlock, repository=vault.keys.repository) is None:
            raise HolderRefused(name=name, reason="this is not its passphrase")
    elif isinstance(wanted, IdentityHolder) and holder.facts.public_key not in ("", wanted.public.strip()):
        raise HolderRefused(name=name, reason="this is not the public key it was added with")


def _check_before(vault: Vault, holders: Sequence[Holder], *, unlock: Unlock, made: Sequence[HolderFile]) -> None:
    """Return when nobody was removed or added meanwhile, and whoever does this will open the new epoch."""
    names = {each.holder for each in made}
    files = list_holder_files(vault.store)
    there = {each.key for each in files}
    gone = [each.facts.name for each in holders if each.facts.name in names and each.file.key not in there]
    if gone:
        raise RotatedMeanwhile(what=f"the key holder {gone[0]!r} was removed")
    added = _added_since(files, holders, vault.keys.held)
    if added:
        raise RotatedMeanwhile(what=f"the key holder {added[0]!r} was added")
    repository = vault.keys.repository
    if not any(open_holder_file(vault.store.get(each.key), unlock, repository=repository) for each in made):
        raise HolderRefused(name=", ".join(sorted(names)), reason="the key in use is not among those that go on")


def _added_since(files: Sequence[HolderFile], holders: Sequence[Holder], held: HeldKeys) -> list[str]:
    """Return the names of holders in the epoch ``held`` who are not among those that were listed before."""
    known = {each.facts.name for each in holders}
    return sorted({each.holder for each in files if (each.epoch, each.attempt) == (held.epoch, held.attempt)} - known)
