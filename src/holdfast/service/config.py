"""What Holdfast remembers between commands: the pools and repositories that were added, and their secrets.

Configuration is a convenience, never the only copy: a repository describes itself, and a pool is added again in a
minute. Invariant: a secret is never stored in clear and never part of a configuration value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from holdfast.core import ExitStatus, HoldfastError, Secret
from holdfast.model import PoolUuid, RepositoryId
from holdfast.storage import StoreOptions

__all__ = [
    "KeyMemory",
    "LineLimits",
    "NameTaken",
    "NameUnknown",
    "PoolConfig",
    "Registry",
    "RepositoryConfig",
    "RepositoryPlace",
    "SecretMissing",
    "TrustKind",
    "Vault",
]


class NameTaken(HoldfastError):
    """Something of this kind has the name already."""

    code = "config.name-taken"
    exit_status = ExitStatus.BUSY
    effect = "Nothing was changed."

    def __init__(self, *, kind: str, name: str) -> None:
        super().__init__(f"there is a {kind} named {name!r} already")
        self.kind, self.name = kind, name

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Choose another name, or remove the old entry first: holdfast {self.kind} remove {self.name}"


class NameUnknown(HoldfastError):
    """Nothing of this kind has that name."""

    code = "config.name-unknown"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was changed."

    def __init__(self, *, kind: str, name: str, known: str) -> None:
        super().__init__(f"there is no {kind} named {name!r}")
        self.kind, self.name, self.known = kind, name, known

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        if self.known:
            return f"Known: {self.known}."
        verb = "add" if self.kind == "pool" else "create"
        return f"None is known yet; start with 'holdfast {self.kind} {verb}'."


class SecretMissing(HoldfastError):
    """A stored secret is gone or cannot be opened by this machine."""

    code = "config.secret-missing"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or written with it."

    def __init__(self, *, what: str) -> None:
        super().__init__(f"the stored secret for {what} is missing or belongs to another machine's identity")
        self.what = what

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return "Add the pool or connect the repository again on this machine; the secret is asked for once."


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """A pool that was added. ``trust`` is ``sha256:<hex>`` (pinned), ``ca:<file>``, ``ca:`` (system) or ``plain``."""

    name: str
    url: str
    user: str
    trust: str
    pool: PoolUuid
    added_at: datetime
    other_hosts: tuple[str, ...] = ()
    """SHA-256 of the certificates of the pool's hosts, by the master's word: a new master is known by them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """How much of the line to a repository this machine may take; None: all of it."""

    up_bytes_per_s_max: int | None = None
    down_bytes_per_s_max: int | None = None

    def __post_init__(self) -> None:
        assert self.up_bytes_per_s_max is None or self.up_bytes_per_s_max > 0
        assert self.down_bytes_per_s_max is None or self.down_bytes_per_s_max > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryPlace:
    """Where a repository lives and how one gets in; no secret in it."""

    location: str
    """A path or a URL."""
    options: StoreOptions = field(default_factory=StoreOptions)
    credentials: str = ""
    """Where its credentials are found: ``env``, ``env:PREFIX``, ``file:PATH``, ``sealed``; empty: none."""
    sealed_as: str = ""
    """The name in the vault of what ``sealed`` refers to."""
    limits: LineLimits = field(default_factory=LineLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMemory:
    """What this machine remembers of a repository's keys: by it a repository that was exchanged is recognised."""

    fingerprint: str = ""
    """Of the repository key; empty until the repository was opened here."""
    epoch: int = 0
    """The highest epoch of the data key that was seen."""
    epoch_fingerprint: str = ""
    """Of the key of that epoch."""
    proven: Mapping[str, datetime] = field(default_factory=dict)
    """When each key holder's key was last asked back and opened the repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryConfig:
    """A repository that was created or connected here. Opened through its ``place``, not its ``location`` alone."""

    name: str
    location: str
    repository: RepositoryId
    added_at: datetime
    options: StoreOptions = field(default_factory=StoreOptions)
    credentials: str = ""
    """See ``RepositoryPlace``."""
    keys: KeyMemory = field(default_factory=KeyMemory)
    limits: LineLimits = field(default_factory=LineLimits)

    @property
    def place(self) -> RepositoryPlace:
        """Where it lives and how one gets in."""
        return RepositoryPlace(
            location=self.location,
            options=self.options,
            credentials=self.credentials,
            sealed_as=sealed_name(self.name),
            limits=self.limits,
        )


def sealed_name(repository_name: str) -> str:
    """Return the name in the vault of a repository's sealed credentials."""
    return f"repository/{repository_name}/credentials"


class TrustKind:
    """How a pool's certificate is judged, as stored in ``PoolConfig.trust``."""

    PINNED = "sha256:"
    AUTHORITY = "ca:"
    PLAIN = "plain"


class Registry(Protocol):
    """The pools and repositories that were added. Changes are atomic; names are unique per kind."""

    def pools(self) -> list[PoolConfig]:
        """Return all pools by name."""
        ...

    def pool(self, name: str) -> PoolConfig:
        """Return one; ``NameUnknown`` otherwise."""
        ...

    def check_pool_name(self, name: str) -> None:
        """Return when a pool can be added under this name; ``NameTaken``, or what the implementation cannot hold."""
        ...

    def add_pool(self, config: PoolConfig) -> None:
        """Remember one; ``NameTaken`` when the name is in use."""
        ...

    def replace_pool(self, config: PoolConfig) -> None:
        """Remember one that is known already with other facts; ``NameUnknown`` when there is none of its name."""
        ...

    def remove_pool(self, name: str) -> None:
        """Forget one; ``NameUnknown`` when there is none."""
        ...

    def repositories(self) -> list[RepositoryConfig]:
        """Return all repositories by name."""
        ...

    def repository(self, name: str) -> RepositoryConfig:
        """Return one; ``NameUnknown`` otherwise."""
        ...

    def check_repository_name(self, name: str) -> None:
        """Return when a repository can be added under this name; errors as ``check_pool_name``."""
        ...

    def add_repository(self, config: RepositoryConfig) -> None:
        """Remember one; ``NameTaken`` when the name is in use."""
        ...

    def replace_repository(self, config: RepositoryConfig) -> None:
        """Remember one that is known already with other facts; ``NameUnknown`` when there is none of its name."""
        ...

    def remove_repository(self, name: str) -> None:
        """Forget one; the data stays where it is. ``NameUnknown`` when there is none."""
        ...


class Vault(Protocol):
    """Secrets sealed for this machine, so that unattended runs ask nothing."""

    @property
    def identity(self) -> Secret:
        """This machine's own key (X25519, age text), created on first use with mode 0600."""
        ...

    @property
    def public_key(self) -> str:
        """The public half of ``identity``; the machine is a key holder of its repositories by it."""
        ...

    def store(self, name: str, secret: Secret) -> None:
        """Seal a secret under a name, replacing the old one."""
        ...

    def load(self, name: str) -> Secret:
        """Return a sealed secret; ``SecretMissing`` when there is none or another machine sealed it."""
        ...

    def forget(self, name: str) -> None:
        """Remove a secret; fine when there is none."""
        ...
