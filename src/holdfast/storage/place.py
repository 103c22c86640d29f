"""Where a store is, as a value: what a person wrote, the options beside it, and the secrets that open it.

Invariant: the location and the options hold no secret and may be shown and kept in clear; credentials are never part of
either and print as ``***``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from holdfast.core import Secret
from holdfast.storage.errors import LocationRefused

__all__ = ["LockMode", "StoreCredentials", "StoreOptions", "StorePlace", "refuse_options"]


class LockMode(enum.Enum):
    """Who can lift a lock of an object before its time, in a bucket that keeps versions."""

    NONE = "none"
    """Nothing is locked; the bucket keeps versions all the same."""

    GOVERNANCE = "governance"
    """Whoever holds the right to bypass it (``s3:BypassGovernanceRetention``)."""
    COMPLIANCE = "compliance"
    """Nobody, the owner of the account included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """What is told beside a location. Each scheme refuses the options that it cannot honour."""

    endpoint: str = ""
    """URL of the service where it is not the provider's own, such as ``https://s3.example.org:9000``."""
    region: str = ""
    path_style: bool | None = None
    """Whether the bucket is named in the path instead of the host name; None: whatever suits the endpoint."""
    object_lock: LockMode | None = None
    """How locks are set; None: the bucket keeps no versions and knows no locks."""
    ca_file: str = ""
    """A file with the certificates (PEM) that sign the service's own, where this machine does not know them."""


@dataclass(frozen=True, slots=True)
class StoreCredentials:
    """Secrets by the name under which their provider documents them (``AWS_ACCESS_KEY_ID``, …)."""

    values: Mapping[str, Secret] = field(default_factory=lambda: MappingProxyType({}))

    def get(self, name: str) -> Secret | None:
        """Return one of them, None where it was not given or is empty."""
        return self.values.get(name) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlace:
    """Everything that opening a store needs."""

    location: str
    """A path or URL."""
    options: StoreOptions = StoreOptions()
    credentials: StoreCredentials = StoreCredentials()


def refuse_options(place: StorePlace, *, except_for: frozenset[str] = frozenset()) -> None:
    """Return when no option is set that the place's scheme cannot honour; ``LocationRefused`` otherwise."""
    unset = StoreOptions()
    for each in fields(StoreOptions):
        if each.name not in except_for and getattr(place.options, each.name) != getattr(unset, each.name):
            option = "--" + each.name.replace("_", "-")
            raise LocationRefused(location=place.location, reason=f"{option} means nothing to a place of this kind")
