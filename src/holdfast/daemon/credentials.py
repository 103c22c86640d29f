"""From a credentials reference to the secrets themselves: the environment, a private file, or the vault.

Invariant: secrets are read when a store is opened, kept nowhere else, and leave here only as ``Secret``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import MappingProxyType
from typing import assert_never

from holdfast.core import ExitStatus, HoldfastError, Secret
from holdfast.service import RepositoryPlace, Vault
from holdfast.storage import (
    CREDENTIAL_NAMES,
    CredentialsSource,
    CredentialsUnreadable,
    StoreCredentials,
    parse_credentials,
    parse_reference,
    scheme_of,
)

__all__ = ["CredentialsNotPrivate", "read_credentials"]

_FILE_BYTES_MAX = 65536
"""A credentials file has a handful of lines; anything larger is another file."""


class CredentialsNotPrivate(HoldfastError):
    """Others than its owner can read or change the file with the credentials."""

    code = "store.credentials-not-private"
    exit_status = ExitStatus.REFUSED
    effect = "The credentials were not used; nothing was read or written."

    def __init__(self, *, path: Path, what: str) -> None:
        super().__init__(f"{path} {what}")
        self.path = str(path)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Run 'chmod 600 {self.path}' as the user who runs Holdfast; change the keys if others may have read it."


def read_credentials(place: RepositoryPlace, *, vault: Vault) -> StoreCredentials:
    """Return the credentials of a place, none for one that takes none.

    Without a reference they come from the environment. ``CredentialsUnreadable``, ``CredentialsNotPrivate``,
    ``SecretMissing``. Whether they suffice is for the store to say.
    """
    scheme = scheme_of(place.location)
    names = CREDENTIAL_NAMES.get(scheme, ())
    if not names:
        if place.credentials:
            raise CredentialsUnreadable(
                reference=place.credentials,
                reason="a place of this kind takes no credentials",
                advice="Leave --credentials out.",
            )
        return StoreCredentials()
    reference = parse_reference(place.credentials or CredentialsSource.ENVIRONMENT.value)
    match reference.source:
        case CredentialsSource.ENVIRONMENT:
            prefix = reference.argument.rstrip("_") + "_" if reference.argument else ""
            found = {name: Secret(os.environ[prefix + name]) for name in names if prefix + name in os.environ}
            return StoreCredentials(MappingProxyType(found))
        case CredentialsSource.FILE:
            text = _read_private(Path(reference.argument), place.credentials)
            return parse_credentials(text, scheme=scheme, reference=place.credentials)
        case CredentialsSource.SEALED:
            text = vault.load(place.sealed_as).reveal()
            return parse_credentials(text, scheme=scheme, reference=place.credentials)
        case _:
            assert_never(reference.source)


def _read_private(path: Path, reference: str) -> str:
    """Return the text of a file that only we, or root, can have written and read."""
    try:
        # Asked of the open file: a name can lead elsewhere a moment later.
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid not in (0, os.geteuid()):
                raise CredentialsNotPrivate(path=path, what="belongs to another user")
            if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077:
                raise CredentialsNotPrivate(path=path, what=f"can be read by others (mode {facts.st_mode & 0o777:o})")
            return file.read(_FILE_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else "it is not text"
        raise CredentialsUnreadable(
            reference=reference, reason=str(reason), advice="Check the path and who may read it."
        ) from cause
