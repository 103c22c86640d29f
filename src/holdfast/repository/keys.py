"""Key holders: who can open a repository. Each holder is one age file that contains the repository key.

Invariant: the repository key itself lies in the store only inside age files, or in ``keys/open.json`` when the owner
asked for a repository without a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec
import pyrage

from holdfast.core import ExitStatus, HoldfastError, Secret
from holdfast.model import RepositoryId
from holdfast.repository.layout import KEYS_PREFIX
from holdfast.repository.sealing import KEY_BYTES
from holdfast.storage import ObjectExists, ObjectMissing, ObjectStore

__all__ = [
    "HolderExists",
    "HolderFacts",
    "HolderRefused",
    "HolderUnknown",
    "IdentityHolder",
    "IdentityUnlock",
    "LastHolder",
    "NewHolder",
    "OpenHolder",
    "OpenUnlock",
    "PassphraseHolder",
    "PassphraseUnlock",
    "RecoveryKey",
    "Unlock",
    "WrongKey",
    "add_holder",
    "list_holders",
    "new_recovery_key",
    "remove_holder",
    "unlock_key",
]

_OPEN_KEY = f"{KEYS_PREFIX}open.json"
_SUFFIX = ".age"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class WrongKey(HoldfastError):
    """Nothing that was given opens this repository."""

    code = "repository.wrong-key"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or changed."
    advice = (
        "Check the passphrase or key; 'holdfast repository key list' on a machine that can open it lists the holders."
    )

    def __init__(self, *, store: str, tried: str) -> None:
        super().__init__(f"{store}: {tried} does not open this repository")
        self.store, self.tried = store, tried


class HolderRefused(HoldfastError):
    """A key holder cannot be made from what was given."""

    code = "repository.holder-refused"
    exit_status = ExitStatus.USAGE
    effect = "No key was changed."
    advice = "Give a short lower-case name, and a public key that begins with age1 or ssh-ed25519."

    def __init__(self, *, name: str, reason: str) -> None:
        super().__init__(f"key holder {name!r}: {reason}")
        self.name, self.reason = name, reason


class HolderExists(HoldfastError):
    """There is a key holder of this name."""

    code = "repository.holder-exists"
    exit_status = ExitStatus.REFUSED
    effect = "The existing holder was not changed."
    advice = "Choose another name, or remove that holder first."

    def __init__(self, *, name: str) -> None:
        super().__init__(f"there is a key holder named {name!r} already")
        self.name = name


class HolderUnknown(HoldfastError):
    """There is no key holder of this name."""

    code = "repository.holder-unknown"
    exit_status = ExitStatus.NOT_FOUND
    effect = "No key was changed."
    advice = "See 'holdfast repository key list'."

    def __init__(self, *, name: str) -> None:
        super().__init__(f"there is no key holder named {name!r}")
        self.name = name


class LastHolder(HoldfastError):
    """The only key holder cannot be removed: nobody could read the repository any more."""

    code = "repository.last-holder"
    exit_status = ExitStatus.REFUSED
    effect = "The holder was kept."
    advice = "Add another holder first."

    def __init__(self, *, name: str) -> None:
        super().__init__(f"{name!r} is the only key holder")
        self.name = name


@dataclass(frozen=True, slots=True)
class PassphraseHolder:
    """Whoever knows a passphrase."""

    name: str
    passphrase: Secret


@dataclass(frozen=True, slots=True)
class IdentityHolder:
    """Whoever has the private half of a public key: ``age1…`` or ``ssh-ed25519 …``."""

    name: str
    public: str


@dataclass(frozen=True, slots=True)
class OpenHolder:
    """Everybody who can read the store: a repository without a secret."""

    name: str = "open"


NewHolder = PassphraseHolder | IdentityHolder | OpenHolder


@dataclass(frozen=True, slots=True)
class PassphraseUnlock:
    """Open with a passphrase."""

    passphrase: Secret


@dataclass(frozen=True, slots=True)
class IdentityUnlock:
    """Open with a private key: the text of an age identity, or of an OpenSSH ed25519 key file."""

    identity: Secret


@dataclass(frozen=True, slots=True)
class OpenUnlock:
    """Open a repository that has no secret."""


Unlock = PassphraseUnlock | IdentityUnlock | OpenUnlock


@dataclass(frozen=True, slots=True)
class HolderFacts:
    """A key holder as it shows in the store."""

    name: str
    kind: str
    """``passphrase``, ``age key``, ``ssh key``, ``open`` or ``unreadable``."""


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """A new key pair. The secret is shown to the owner once, to be kept apart from everything else."""

    secret: Secret
    public: str


class _KeyText(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    repository: str
    key: bytes


def new_recovery_key() -> RecoveryKey:
    """Return a fresh X25519 age identity."""
    identity = pyrage.x25519.Identity.generate()
    return RecoveryKey(Secret(str(identity)), str(identity.to_public()))


def add_holder(store: ObjectStore, holder: NewHolder, *, key: bytes, repository: RepositoryId) -> None:
    """Store the repository key for one more holder. ``HolderExists``, ``HolderRefused``."""
    payload = msgspec.json.encode(_KeyText(version=1, repository=repository, key=key))
    name = _holder_key(holder)
    match holder:
        case PassphraseHolder():
            if not holder.passphrase:
                raise HolderRefused(name=holder.name, reason="the passphrase is empty")
            sealed = pyrage.passphrase.encrypt(payload, holder.passphrase.reveal())
        case IdentityHolder():
            sealed = pyrage.encrypt(payload, [_recipient(holder)])
        case OpenHolder():
            sealed = payload
    try:
        store.put(name, sealed)
    except ObjectExists as cause:
        raise HolderExists(name=holder.name) from cause


def list_holders(store: ObjectStore) -> list[HolderFacts]:
    """Return all holders, by name."""
    return [
        HolderFacts(info.key.removeprefix(KEYS_PREFIX).rpartition(".")[0], _kind(store, info.key))
        for info in list(store.list(KEYS_PREFIX))
    ]


def remove_holder(store: ObjectStore, name: str) -> None:
    """Remove a holder. ``HolderUnknown``, ``LastHolder``. Whoever copied the key before can still use it."""
    keys = {info.key for info in store.list(KEYS_PREFIX)}
    key = _OPEN_KEY if name == "open" else f"{KEYS_PREFIX}{name}{_SUFFIX}"
    if key not in keys:
        raise HolderUnknown(name=name)
    if len(keys) == 1:
        raise LastHolder(name=name)
    store.delete(key)


def unlock_key(store: ObjectStore, unlock: Unlock, *, repository: RepositoryId) -> bytes:
    """Return the repository key; ``WrongKey`` when no holder's file opens."""
    match unlock:
        case OpenUnlock():
            candidates, tried = [_OPEN_KEY], "no key at all"
        case PassphraseUnlock() | IdentityUnlock():
            candidates = [info.key for info in store.list(KEYS_PREFIX) if info.key.endswith(_SUFFIX)]
            tried = "the passphrase" if isinstance(unlock, PassphraseUnlock) else "the key"
    for candidate in candidates:
        try:
            payload = _try_open(store.get(candidate), unlock)
        except ObjectMissing:
            continue
        key = None if payload is None else _parse(payload, repository=repository)
        if key is not None:
            return key
    raise WrongKey(store=store.describe(), tried=tried)


def _try_open(sealed: bytes, unlock: Unlock) -> bytes | None:
    """Return the payload of one holder's file; None when it is not for this key."""
    try:
        match unlock:
            case OpenUnlock():
                return sealed
            case PassphraseUnlock(passphrase):
                # Each try costs a second of scrypt, so files for other kinds of holders are passed over.
                is_for_passphrase = _stanza(sealed) == "scrypt"
                return pyrage.passphrase.decrypt(sealed, passphrase.reveal()) if is_for_passphrase else None
            case IdentityUnlock(identity):
                return None if _stanza(sealed) == "scrypt" else pyrage.decrypt(sealed, [_identity(identity)])
    except (pyrage.DecryptError, pyrage.IdentityError, ValueError):
        return None


def _parse(payload: bytes, *, repository: RepositoryId) -> bytes | None:
    try:
        text = msgspec.json.decode(payload, type=_KeyText)
    except (msgspec.DecodeError, ValueError):
        return None
    return text.key if text.repository == repository and len(text.key) == KEY_BYTES else None


def _identity(secret: Secret) -> object:
    text = secret.reveal().strip()
    if text.startswith("AGE-SECRET-KEY-"):
        return pyrage.x25519.Identity.from_str(text)
    return pyrage.ssh.Identity.from_buffer(secret.reveal().encode())


def _recipient(holder: IdentityHolder) -> object:
    text = holder.public.strip()
    try:
        if text.startswith("age1"):
            return pyrage.x25519.Recipient.from_str(text)
        if text.startswith("ssh-ed25519 "):
            return pyrage.ssh.Recipient.from_str(text)
    except (pyrage.RecipientError, ValueError) as cause:
        raise HolderRefused(name=holder.name, reason=f"its public key is not one: {cause}") from cause
    raise HolderRefused(name=holder.name, reason="its public key begins neither with age1 nor with ssh-ed25519")


def _holder_key(holder: NewHolder) -> str:
    if isinstance(holder, OpenHolder):
        return _OPEN_KEY
    if not _NAME.fullmatch(holder.name) or holder.name == "open":
        raise HolderRefused(
            name=holder.name, reason="a name has lower-case letters, digits, - and _, and is not 'open'"
        )
    return f"{KEYS_PREFIX}{holder.name}{_SUFFIX}"


def _kind(store: ObjectStore, key: str) -> str:
    if key == _OPEN_KEY:
        return "open"
    names = {"scrypt": "passphrase", "X25519": "age key", "ssh-ed25519": "ssh key"}
    try:
        return names.get(_stanza(store.get(key)), "unreadable")
    except ObjectMissing:
        return "unreadable"


def _stanza(sealed: bytes) -> str:
    """Return the kind of the first recipient that the clear header of an age file names."""
    lines = sealed[:200].split(b"\n")
    if len(lines) < 2 or not lines[0].startswith(b"age-encryption.org/") or not lines[1].startswith(b"-> "):
        return ""
    return lines[1][3:].split(b" ")[0].decode(errors="replace")
