"""Key holders and their files: who can open a repository. Each has an age file that holds the keys of all epochs.

Invariant: these keys lie in the store only inside age files, or in ``keys/open.json`` when the owner asked for a
repository without a secret.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

import msgspec
import pyrage

from holdfast.core import ExitStatus, HoldfastError, Secret, from_json
from holdfast.model import RepositoryId
from holdfast.repository.layout import KEYS_PREFIX
from holdfast.repository.sealing import KEY_BYTES
from holdfast.storage import ObjectStore

__all__ = [
    "FIRST_ATTEMPT",
    "HolderExists",
    "HolderFacts",
    "HolderFile",
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
    "files_for",
    "holder_file",
    "kind_of",
    "list_holder_files",
    "new_recovery_key",
    "open_holder_file",
    "public_key_of",
    "seal_holder_file",
    "tried",
]

_OPEN_KEY = f"{KEYS_PREFIX}open.json"
_SUFFIX = ".age"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_GENERATION = re.compile(r"(?P<holder>[^.]+)\.(?P<epoch>\d{5})-(?P<attempt>[0-9a-f]{8})-[0-9a-f]{8}")

FIRST_ATTEMPT = "00000000"
FIRST_SERIAL = "00000000"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderFacts:
    """A key holder as it shows in the store, and in the record that was made when it was added."""

    name: str
    kind: str
    """``passphrase``, ``age key``, ``ssh key``, ``open`` or ``unreadable``."""
    public_key: str = ""
    """The public half, where it is known; what a passphrase has not."""
    is_current: bool = True
    """Whether the holder got the data key that is in force; one who did not reads what is older."""


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """A new key pair. The secret is shown to the owner once, to be kept apart from everything else."""

    secret: Secret
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderFile:
    """One file of a key holder, as its name tells it."""

    key: str
    """The object's name."""
    holder: str
    epoch: int = 0
    attempt: str = FIRST_ATTEMPT


class _KeyText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    version: int
    repository: str
    key: bytes
    epochs: tuple[bytes, ...] = ()


def new_recovery_key() -> RecoveryKey:
    """Return a fresh X25519 age identity."""
    identity = pyrage.x25519.Identity.generate()
    return RecoveryKey(Secret(str(identity)), str(identity.to_public()))


def public_key_of(unlock: Unlock) -> str:
    """Return the public half of an age identity; empty for anything else, of which it cannot be told."""
    if isinstance(unlock, IdentityUnlock):
        with contextlib.suppress(pyrage.IdentityError, ValueError):
            identity = _identity(unlock.identity)
            if isinstance(identity, pyrage.x25519.Identity):
                return str(identity.to_public())
    return ""


def holder_file(holder: NewHolder, *, epoch: int = 0, attempt: str = FIRST_ATTEMPT, serial: str = "") -> HolderFile:
    """Return where a holder's file belongs; ``HolderRefused`` for a name that cannot be one."""
    if isinstance(holder, OpenHolder):
        return HolderFile(key=_OPEN_KEY, holder=holder.name)
    if not _NAME.fullmatch(holder.name) or holder.name == "open":
        raise HolderRefused(
            name=holder.name, reason="a name has lower-case letters, digits, - and _, and is not 'open'"
        )
    is_first = epoch == 0 and not serial
    generation = "" if is_first else f".{epoch:05}-{attempt}-{serial or FIRST_SERIAL}"
    return HolderFile(
        key=f"{KEYS_PREFIX}{holder.name}{generation}{_SUFFIX}", holder=holder.name, epoch=epoch, attempt=attempt
    )


def list_holder_files(store: ObjectStore) -> list[HolderFile]:
    """Return all files of key holders: those of later epochs first, then by name."""
    found = [_parse_name(info.key) for info in store.list(KEYS_PREFIX)]
    return sorted(found, key=lambda each: (-each.epoch, each.key))


def seal_holder_file(holder: NewHolder, keys: tuple[bytes, ...], *, repository: RepositoryId) -> bytes:
    """Return the content of a file that gives the keys of all epochs to one holder. ``HolderRefused``."""
    text = _KeyText(version=2 if keys[1:] else 1, repository=repository, key=keys[0], epochs=keys[1:])
    payload = msgspec.json.encode(text)
    match holder:
        case PassphraseHolder():
            if not holder.passphrase:
                raise HolderRefused(name=holder.name, reason="the passphrase is empty")
            sealed: bytes = pyrage.passphrase.encrypt(payload, holder.passphrase.reveal())
        case IdentityHolder():
            sealed = pyrage.encrypt(payload, [_recipient(holder)])
        case OpenHolder():
            sealed = payload
    return sealed


def open_holder_file(content: bytes, unlock: Unlock, *, repository: RepositoryId) -> tuple[bytes, ...] | None:
    """Return the keys of the epochs 0, 1, … in a holder's file; None when it is not for this secret."""
    try:
        match unlock:
            case OpenUnlock():
                payload = content
            case PassphraseUnlock(passphrase):
                # Each try costs a second of scrypt, so files for other kinds of holders are passed over.
                if _stanza(content) != "scrypt":
                    return None
                payload = pyrage.passphrase.decrypt(content, passphrase.reveal())
            case IdentityUnlock(identity):
                if _stanza(content) == "scrypt":
                    return None
                payload = pyrage.decrypt(content, [_identity(identity)])
    except (pyrage.DecryptError, pyrage.IdentityError, ValueError):
        return None
    return _parse(payload, repository=repository)


def files_for(files: list[HolderFile], unlock: Unlock) -> list[HolderFile]:
    """Return the files that a secret of this kind may open, in their order."""
    return [each for each in files if (each.key == _OPEN_KEY) == isinstance(unlock, OpenUnlock)]


def tried(unlock: Unlock) -> str:
    """Return what was tried, for a message that must not say more."""
    names = {PassphraseUnlock: "the passphrase", IdentityUnlock: "the key", OpenUnlock: "no key at all"}
    return names[type(unlock)]


def kind_of(content: bytes, file: HolderFile) -> str:
    """Return what kind of holder a file is for, as in ``HolderFacts.kind``."""
    if file.key == _OPEN_KEY:
        return "open"
    names = {"scrypt": "passphrase", "X25519": "age key", "ssh-ed25519": "ssh key"}
    return names.get(_stanza(content), "unreadable")


def _parse(payload: bytes, *, repository: RepositoryId) -> tuple[bytes, ...] | None:
    try:
        text = from_json(payload, _KeyText)
    except (msgspec.DecodeError, ValueError):
        return None
    keys = (text.key, *text.epochs)
    is_ours = text.version in (1, 2) and text.repository == repository
    return keys if is_ours and all(len(each) == KEY_BYTES for each in keys) else None


def _parse_name(key: str) -> HolderFile:
    stem = key.removeprefix(KEYS_PREFIX).rpartition(".")[0]
    found = _GENERATION.fullmatch(stem)
    if found is None:
        return HolderFile(key=key, holder=stem)
    return HolderFile(key=key, holder=found["holder"], epoch=int(found["epoch"]), attempt=found["attempt"])


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


def _stanza(sealed: bytes) -> str:
    """Return the kind of the first recipient that the clear header of an age file names."""
    lines = sealed[:200].split(b"\n")
    if len(lines) < 2 or not lines[0].startswith(b"age-encryption.org/") or not lines[1].startswith(b"-> "):
        return ""
    return lines[1][3:].split(b" ")[0].decode(errors="replace")
