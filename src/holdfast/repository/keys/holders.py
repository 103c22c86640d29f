"""Adding, removing and changing key holders, and the records of their public keys.

Invariant: at every moment everybody who may open the repository has a file that does; a file is removed only after
what takes its place was read back and, where its secret is at hand, opened.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

import msgspec
from blake3 import blake3

from holdfast.core import ExitStatus, HoldfastError, format_minute, format_time, from_msgpack
from holdfast.repository.keys.epochs import check_epoch, epoch_in_force
from holdfast.repository.keys.keys import (
    HolderExists,
    HolderFacts,
    HolderFile,
    HolderRefused,
    HolderUnknown,
    IdentityHolder,
    LastHolder,
    NewHolder,
    OpenHolder,
    OpenUnlock,
    PassphraseHolder,
    PassphraseUnlock,
    Unlock,
    files_for,
    holder_file,
    kind_of,
    list_holder_files,
    open_holder_file,
    public_key_of,
    seal_holder_file,
)
from holdfast.repository.layout import HOLDERS_PREFIX, ObjectKind
from holdfast.repository.records.immutability import let_go, read_lock_policy
from holdfast.repository.sealing import KeyOutdated, SealBroken, sealed_epoch
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectExists, ObjectLocked, ObjectMissing

__all__ = [
    "Holder",
    "HolderHeld",
    "HolderNotProven",
    "add_holder",
    "drop_files",
    "list_holders",
    "prove",
    "record_public_key",
    "remove_holder",
    "replace_secret",
    "store_holder",
    "tidy_holders",
]


class HolderNotProven(HoldfastError):
    """The new file of a key holder does not open as it must; the store or this machine spoiled it."""

    code = "repository.holder-not-proven"
    exit_status = ExitStatus.DAMAGED
    effect = "Nothing was taken away: every key that opened the repository before still does."
    advice = "Try again; if it fails again, test the store with 'holdfast repository test'."

    def __init__(self, *, name: str, key: str) -> None:
        super().__init__(f"key holder {name!r}: object {key} was stored and does not open")
        self.name, self.key = name, key


class HolderHeld(HoldfastError):
    """A key holder's file is locked in the store, as everything is that restore points need."""

    code = "repository.holder-held"
    exit_status = ExitStatus.REFUSED
    effect = "The holder can still open the repository. The lock is not extended any more."
    advice = (
        "Keep the holder from what comes later with 'holdfast repository key rotate-data --leave-out'; "
        "the file goes with the first change of key holders after the lock has ended."
    )

    def __init__(self, *, name: str, until: datetime | None) -> None:
        when = "" if until is None else f" until {format_minute(until)}"
        super().__init__(f"the file of key holder {name!r} is locked in the store{when}")
        self.name, self.until = name, until


class _HolderRecord(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    recipient: str
    added_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A key holder with the newest of its files."""

    facts: HolderFacts
    file: HolderFile
    content: bytes


def list_holders(vault: Vault, *, unlock: Unlock | None = None) -> list[Holder]:
    """Return all holders, by name. ``unlock`` tells the public key of whoever uses it, record or not."""
    held = vault.keys.held
    found: dict[str, Holder] = {}
    for file in list_holder_files(vault.store):
        is_current = file.epoch == held.in_force and (file.attempt == held.attempt or held.epoch != held.in_force)
        # Files of later epochs come first: an attempt that has not won counts only for whoever has nothing else.
        known = found.get(file.holder)
        if known is not None and (known.facts.is_current or not is_current):
            continue
        try:
            content = vault.store.get(file.key)
        except ObjectMissing:
            continue
        facts = HolderFacts(
            name=file.holder,
            kind=kind_of(content, file),
            public_key=_public_key(vault, file, content, unlock),
            is_current=is_current,
        )
        found[file.holder] = Holder(facts=facts, file=file, content=content)
    return [found[name] for name in sorted(found)]


def add_holder(vault: Vault, holder: NewHolder) -> None:
    """Let somebody else open the repository too. ``HolderExists``, ``HolderRefused``, ``HolderNotProven``."""
    check_epoch(vault)
    if isinstance(holder, OpenHolder) and vault.keys.epoch > 0:
        raise HolderRefused(name=holder.name, reason="the data key was rotated, so this repository stays secret")
    if any(each.facts.name == holder.name and each.facts.is_current for each in list_holders(vault)):
        raise HolderExists(name=holder.name)
    held = vault.keys.held
    try:
        _store_in_force(vault, holder, holder_file(holder, epoch=held.epoch, attempt=held.attempt))
    except ObjectExists as cause:
        raise HolderExists(name=holder.name) from cause
    tidy_holders(vault)


def replace_secret(vault: Vault, holder: NewHolder) -> datetime | None:
    """Give a holder another secret: the new file first, opened, then the old ones go. ``HolderUnknown``.

    Return until when the old secret opens the repository too, because the store locks its file; None when it does not.
    """
    check_epoch(vault)
    files = [each for each in list_holder_files(vault.store) if each.holder == holder.name]
    if not files:
        raise HolderUnknown(name=holder.name)
    held = vault.keys.held
    serial = vault.entropy.token_bytes(4).hex()
    _store_in_force(vault, holder, holder_file(holder, epoch=held.epoch, attempt=held.attempt, serial=serial))
    locked = drop_files(vault, files)
    tidy_holders(vault)
    return _held_until(vault, locked)


def remove_holder(vault: Vault, name: str) -> None:
    """Remove a holder. ``HolderUnknown``, ``LastHolder``. Whoever copied the keys before can still use them."""
    check_epoch(vault)
    holders = list_holders(vault)
    if name not in {each.facts.name for each in holders}:
        raise HolderUnknown(name=name)
    if not any(each.facts.is_current and each.facts.name != name for each in holders):
        raise LastHolder(name=name)
    # Again until none is left: an epoch that begins meanwhile may have made a new file of the holder.
    locked: list[HolderFile] = []
    while files := [each for each in list_holder_files(vault.store) if each.holder == name and each not in locked]:
        locked += drop_files(vault, files)
    tidy_holders(vault)
    if locked:
        raise HolderHeld(name=name, until=_held_until(vault, locked))


def store_holder(vault: Vault, holder: NewHolder, file: HolderFile) -> None:
    """Store a holder's file and record, and prove that it opens. ``ObjectExists``, ``HolderNotProven``.

    ``ObjectMissing`` when it is gone already: whoever begins an epoch removes the files of others.
    """
    content = seal_holder_file(holder, vault.keys.held.keys, repository=vault.keys.repository)
    vault.store.put(file.key, content)
    try:
        prove(vault, holder, file, content)
    except HolderNotProven:
        vault.store.delete(file.key)
        raise
    if not isinstance(holder, OpenHolder):
        recipient = holder.public.strip() if isinstance(holder, IdentityHolder) else ""
        _write_record(vault, file, content, recipient)


def _store_in_force(vault: Vault, holder: NewHolder, file: HolderFile) -> None:
    """Store a holder's file for the epoch in force; ``KeyOutdated`` when another one has begun meanwhile."""
    try:
        store_holder(vault, holder, file)
    except ObjectMissing as cause:
        _check_epoch(vault, file)
        raise HolderNotProven(name=holder.name, key=file.key) from cause
    _check_epoch(vault, file)


def prove(vault: Vault, holder: NewHolder, file: HolderFile, content: bytes) -> None:
    """Return when a holder's file lies in the store as it was written, and opens if its secret is known here."""
    found = vault.store.get(file.key)
    unlock: Unlock | None = OpenUnlock() if isinstance(holder, OpenHolder) else None
    if isinstance(holder, PassphraseHolder):
        unlock = PassphraseUnlock(holder.passphrase)
    keys = vault.keys.held.keys
    opens = unlock is None or open_holder_file(found, unlock, repository=vault.keys.repository) == keys
    if found != content or not opens:
        raise HolderNotProven(name=holder.name, key=file.key)


def record_public_key(vault: Vault, unlock: Unlock) -> str | None:
    """Return the name of the holder in force whose file ``unlock`` opens, if any; its public key is recorded."""
    public = public_key_of(unlock)
    for holder in list_holders(vault):
        is_candidate = holder.facts.is_current and files_for([holder.file], unlock)
        if is_candidate and open_holder_file(holder.content, unlock, repository=vault.keys.repository):
            if public and not holder.facts.public_key:
                _write_record(vault, holder.file, holder.content, public)
            return holder.facts.name
    return None


def tidy_holders(vault: Vault) -> int:
    """Remove files of epochs that are over, of attempts that lost and of holders that were removed while a lock held
    them, and records of no file; return how many files are held by a lock of the store. Interrupted at any moment, the
    next one goes on."""
    held = vault.keys.held
    policy = read_lock_policy(vault)
    going = frozenset() if policy is None else policy.let_go
    files = list_holder_files(vault.store)
    over = [
        each
        for each in files
        if each.key in going or each.epoch < held.epoch or (each.epoch == held.epoch and each.attempt != held.attempt)
    ]
    locked = len(drop_files(vault, over))
    # Listed before the files: a file is there before its record.
    records = {info.key for info in vault.names(HOLDERS_PREFIX)}
    for file in list_holder_files(vault.store):
        try:
            records.discard(_record_key(vault.store.get(file.key)))
        except ObjectMissing:
            continue
    for record in sorted(records):
        with contextlib.suppress(ObjectLocked):  # the next one removes it
            vault.store.delete(record)
    return locked


def drop_files(vault: Vault, files: list[HolderFile]) -> list[HolderFile]:
    """Remove files; return those that the store does not let go of yet. Their locks are not extended any more."""
    locked = []
    for file in files:
        try:
            vault.store.delete(file.key)
        except ObjectLocked:
            locked.append(file)
    if locked:
        let_go(vault, [each.key for each in locked])
    return locked


def _held_until(vault: Vault, files: list[HolderFile]) -> datetime | None:
    return max((until for each in files if (until := vault.store.locked_until(each.key))), default=None)


def _check_epoch(vault: Vault, file: HolderFile) -> None:
    """Take a new file back if another epoch has begun since its keys were put together."""
    in_force = epoch_in_force(vault.store)
    if in_force != vault.keys.epoch:
        vault.store.delete(file.key)
        raise KeyOutdated(held=vault.keys.epoch, in_force=in_force)


def _write_record(vault: Vault, file: HolderFile, content: bytes, recipient: str) -> None:
    record = _HolderRecord(file=file.key, recipient=recipient, added_at=format_time(vault.clock.now()))
    with contextlib.suppress(ObjectExists):
        vault.write(_record_key(content), msgspec.msgpack.encode(record), kind=ObjectKind.HOLDER)


def _public_key(vault: Vault, file: HolderFile, content: bytes, unlock: Unlock | None) -> str:
    """Return a holder's public key from its record; from ``unlock`` when that opens its file; empty when unknown."""
    name = _record_key(content)
    try:
        sealed = vault.store.get(name)
        record = from_msgpack(vault.keys.open_object(sealed, kind=ObjectKind.HOLDER, key=name), _HolderRecord)
        # One that is sealed with an older key could be made by somebody who was left out since.
        if sealed_epoch(sealed) == vault.keys.epoch and record.file == file.key and record.recipient:
            return record.recipient
    except (ObjectMissing, SealBroken, msgspec.DecodeError, ValueError):
        pass
    public = "" if unlock is None else public_key_of(unlock)
    return public if public and unlock and open_holder_file(content, unlock, repository=vault.keys.repository) else ""


def _record_key(content: bytes) -> str:
    return f"{HOLDERS_PREFIX}{blake3(content).hexdigest(length=16)}"
