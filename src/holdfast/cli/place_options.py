"""What is told beside a location: how a service is reached, and where its credentials are kept."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from holdfast.cli.asking import asking
from holdfast.core import Secret
from holdfast.service import GivenCredentials
from holdfast.storage import (
    CREDENTIAL_NAMES,
    CredentialsSource,
    CredentialsUnreadable,
    LockMode,
    StoreOptions,
    parse_credentials,
    parse_reference,
    scheme_of,
)

__all__ = ["NO_PLACE_OPTIONS", "PlaceOptions", "given_credentials"]

_STDIN_CHARACTERS_MAX = 65536
"""A handful of lines is expected; anything larger is another file."""


@Parameter(name="*")
@dataclass(frozen=True)
class PlaceOptions:
    """The options of a repository that lives in a service; remembered, but for secrets, which are only referred to."""

    endpoint: Annotated[
        str, Parameter(help="URL of the service where it is not Amazon's or Azure's own, e.g. https://s3.example.org")
    ] = ""
    region: Annotated[str, Parameter(help="The bucket's region; default us-east-1.")] = ""
    path_style: Annotated[
        bool | None,
        Parameter(help="Name the bucket in the path, or in the host name; default: in the path with --endpoint."),
    ] = None
    object_lock: Annotated[
        LockMode | None,
        Parameter(help="The bucket keeps versions: how locks are set (governance, compliance), or none of them."),
    ] = None
    ca_file: Annotated[
        Path | None, Parameter(help="Certificates (PEM) that sign the service's own, where this machine has none.")
    ] = None
    credentials: Annotated[
        str,
        Parameter(help="Where they are kept: env (default), env:PREFIX, file:PATH, or sealed, typed once or on stdin."),
    ] = ""

    def store_options(self) -> StoreOptions:
        """Return the options as they are remembered."""
        return StoreOptions(
            endpoint=self.endpoint,
            region=self.region,
            path_style=self.path_style,
            object_lock=self.object_lock,
            ca_file=str(self.ca_file.expanduser().absolute()) if self.ca_file else "",
        )


NO_PLACE_OPTIONS = PlaceOptions()


def given_credentials(reference: str, *, location: str) -> GivenCredentials:
    """Return where the credentials of a place are kept; those that are to be sealed are asked for.

    ``CredentialsUnreadable`` when the reference, or what was given to be sealed, is of no use.
    """
    if not reference:
        return GivenCredentials()
    parsed = parse_reference(reference)
    # As it was understood: a path is remembered whole, because commands run from anywhere.
    text = f"{parsed.source.value}:{parsed.argument}" if parsed.argument else parsed.source.value
    if parsed.source is not CredentialsSource.SEALED:
        return GivenCredentials(reference=text)
    scheme = scheme_of(location)
    sealed = _ask(scheme) if sys.stdin.isatty() else sys.stdin.read(_STDIN_CHARACTERS_MAX)
    if not parse_credentials(sealed, scheme=scheme, reference=text).values:
        raise CredentialsUnreadable(
            reference=text,
            reason="nothing was given to be sealed",
            advice=f"Type them, or send NAME=value lines to stdin: {', '.join(CREDENTIAL_NAMES.get(scheme, ()))}.",
        )
    return GivenCredentials(reference=text, sealed=Secret(sealed))


def _ask(scheme: str) -> str:
    """Ask for every credential of a scheme; an empty answer leaves one out."""
    lines = []
    with asking():
        for name in CREDENTIAL_NAMES.get(scheme, ()):
            typed = getpass.getpass(f"{name} (empty: none): ")
            if typed:
                lines.append(f"{name}={typed}")
    return "\n".join(lines)
