"""Keys as people give them: a passphrase, a recovery key typed from paper, a key file."""

from __future__ import annotations

from pathlib import Path

from holdfast.cli.secrets import PASSPHRASE_VARIABLE, read_secret
from holdfast.core import Secret
from holdfast.repository import IdentityUnlock, OpenUnlock, PassphraseUnlock, Unlock

__all__ = ["read_unlock", "unlock_from"]

_IDENTITY = "AGE-SECRET-KEY-"


def unlock_from(typed: Secret) -> Unlock:
    """Return what somebody typed as a key. Case, spaces and line breaks of a recovery key are forgiven."""
    identity = _age_identity(typed)
    # A recovery key cannot be mistaken for anything else, so whoever types it where a passphrase is asked is right.
    return PassphraseUnlock(typed) if identity is None else IdentityUnlock(identity)


def read_unlock(*, passphrase_file: Path | None, recovery_key_file: Path | None, no_secret: bool = False) -> Unlock:
    """Return the key from a file, the environment or a person. ``SecretNotGiven``.

    A recovery key file holds an age identity, as ``age-keygen`` writes it too, or an OpenSSH private key.
    """
    if no_secret:
        return OpenUnlock()
    if recovery_key_file is not None:
        found = read_secret(
            what="recovery key", variable=PASSPHRASE_VARIABLE, option="--recovery-key-file", file=recovery_key_file
        )
        return IdentityUnlock(_age_identity(found) or found)
    return unlock_from(
        read_secret(
            what="passphrase or recovery key",
            variable=PASSPHRASE_VARIABLE,
            option="--recovery-key-file FILE or --passphrase-file",
            file=passphrase_file,
        )
    )


def _age_identity(typed: Secret) -> Secret | None:
    """Return an age identity in its one spelling; None when it is something else."""
    lines = [line for line in typed.reveal().splitlines() if not line.lstrip().startswith("#")]
    text = "".join("".join(lines).split()).upper()
    return Secret(text) if text.startswith(_IDENTITY) else None
