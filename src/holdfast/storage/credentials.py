"""Which secrets each kind of place takes, and how a person says where they are kept.

A reference names a source, never a secret: ``env``, ``env:PREFIX``, ``file:PATH``, ``sealed``. Reading the sources is
the composition root's work; here is what they may hold. Invariant: no secret enters an error's text.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from holdfast.core import ExitStatus, Secret
from holdfast.storage.errors import StoreError
from holdfast.storage.place import StoreCredentials

__all__ = [
    "CREDENTIAL_NAMES",
    "CredentialsMissing",
    "CredentialsReference",
    "CredentialsSource",
    "CredentialsUnreadable",
    "parse_credentials",
    "parse_reference",
]

CREDENTIAL_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        "azure": ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"),
        "smb": ("SMB_USER", "SMB_DOMAIN", "SMB_PASSWORD"),
    }
)
"""Per scheme, the names that its provider documents for them; a scheme that is absent takes none."""


class CredentialsSource(enum.Enum):
    """Where credentials are kept."""

    ENVIRONMENT = "env"
    FILE = "file"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class CredentialsReference:
    """A parsed reference. ``argument`` is the prefix of variables, or the path of the file."""

    source: CredentialsSource
    argument: str = ""


class CredentialsMissing(StoreError):
    """A place wants credentials and was given none, or not all of them."""

    code = "store.credentials-missing"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was read or written."

    def __init__(self, *, location: str, names: Iterable[str]) -> None:
        self.location, self.names = location, " ".join(names)
        super().__init__(f"{location} needs credentials that were not given: {self.names}")

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return "Set them in the environment, or say where they are: --credentials env:PREFIX, file:PATH or sealed."


class CredentialsUnreadable(StoreError):
    """What a credentials reference names cannot be used; nothing that is secret is told."""

    code = "store.credentials-unreadable"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or written."

    def __init__(self, *, reference: str, reason: str, advice: str) -> None:
        super().__init__(f"credentials {reference!r}: {reason}")
        self.reference, self.reason = reference, reason
        self._advice = advice

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return self._advice


def parse_reference(text: str) -> CredentialsReference:
    """Return what a person wrote after ``--credentials``; ``CredentialsUnreadable`` when it is no reference."""
    kind, colon, argument = text.partition(":")
    found = {each.value: each for each in CredentialsSource}.get(kind)
    if found is CredentialsSource.ENVIRONMENT and (not colon or argument.isidentifier()):
        return CredentialsReference(found, argument)
    if found is CredentialsSource.FILE and argument:
        return CredentialsReference(found, str(Path(argument).expanduser().absolute()))
    if found is CredentialsSource.SEALED and not colon:
        return CredentialsReference(found)
    # The text is not repeated: somebody may have written the secret itself.
    raise CredentialsUnreadable(
        reference="…",
        reason="this does not say where they are kept",
        advice="Write env, env:PREFIX, file:PATH or sealed; a secret is never given on the command line.",
    )


def parse_credentials(text: str, *, scheme: str, reference: str) -> StoreCredentials:
    """Return the credentials in a text of ``NAME=value`` lines.

    Names may be in small letters and one ``[section]`` may stand above them, so the file of another tool will do.
    Blank lines and lines that begin with ``#`` say nothing. ``CredentialsUnreadable`` for anything else.
    """
    names = CREDENTIAL_NAMES.get(scheme, ())
    found: dict[str, Secret] = {}
    sections = 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("["):
            sections += 1
            continue
        name, equals, value = stripped.partition("=")
        name = name.strip().upper()
        if not equals or sections > 1 or name in found:
            raise _unreadable(reference, f"line {number} is not NAME=value, or the second of its kind", names)
        if name not in names:
            raise _unreadable(reference, f"line {number} has a name that {scheme}:// does not know", names)
        found[name] = Secret(value.strip())
    return StoreCredentials(MappingProxyType(found))


def _unreadable(reference: str, reason: str, names: Iterable[str]) -> CredentialsUnreadable:
    return CredentialsUnreadable(
        reference=reference, reason=reason, advice=f"Write one NAME=value per line; the names: {', '.join(names)}."
    )
