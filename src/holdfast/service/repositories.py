"""Repositories: created or connected once, opened by this machine's own key from then on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from holdfast.core import Cancellation, Secret, limits
from holdfast.model import PointId
from holdfast.repository import (
    Compression,
    HolderFacts,
    IdentityHolder,
    IdentityUnlock,
    NewHolder,
    OpenHolder,
    OpenUnlock,
    PassphraseHolder,
    PassphraseUnlock,
    ProtectionReport,
    RecoveryKey,
    Repository,
    Unlock,
    Usage,
    WrongKey,
    new_recovery_key,
    open_repository,
)
from holdfast.repository import (
    create_repository as create_in_store,
)
from holdfast.service.config import KeyMemory, RepositoryConfig, RepositoryPlace, SecretMissing, sealed_name
from holdfast.service.place_view import look_at_place
from holdfast.service.protection_view import protection_of
from holdfast.service.recognition import check_identity, judge_keys, recognise_repository, remembered_keys
from holdfast.service.workspace import Workspace
from holdfast.storage import Finding, ObjectStore, StoreOptions, holds_files

__all__ = [
    "CreatedRepository",
    "GivenCredentials",
    "RepositoryOverview",
    "change_credentials",
    "connect_repository",
    "create_repository",
    "list_repositories",
    "open_by_name",
    "open_with",
    "remove_repository",
    "show_repository",
]

_NO_OPTIONS = StoreOptions()

RECOVERY_HOLDER = "recovery"
PASSPHRASE_HOLDER = "passphrase"


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenCredentials:
    """How the credentials of a place are given: a reference, and what is to be sealed when it says ``sealed``."""

    reference: str = ""
    sealed: Secret | None = None
    """Lines of ``NAME=value``."""


_NO_CREDENTIALS = GivenCredentials()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedRepository:
    """A new repository, and the recovery key that is shown to its owner once; None when the owner wants no secret."""

    config: RepositoryConfig
    recovery_key: Secret | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryOverview:
    """What a repository is and holds."""

    config: RepositoryConfig
    location: str
    points: int
    vms: int
    usage: Usage
    free_bytes: int | None
    holders: tuple[HolderFacts, ...]
    data_key_epoch: int
    """How often the data key was rotated."""
    advice: tuple[str, ...]
    """What is wrong with who can open it, in sentences; empty when nothing is."""
    damaged: tuple[PointId, ...]
    """Restore points that are hit by damage which a check has found."""
    protection: ProtectionReport
    """Whether it is protected against deletion, tried just now."""
    findings: tuple[Finding, ...]
    """What can be seen of its place without asking it, such as how a folder is mounted."""


def create_repository(
    workspace: Workspace,
    *,
    name: str,
    location: str,
    passphrase: Secret | None = None,
    without_secret: bool = False,
    compression: Compression = Compression.STANDARD,
    options: StoreOptions = _NO_OPTIONS,
    credentials: GivenCredentials = _NO_CREDENTIALS,
    cancel: Cancellation,
) -> CreatedRepository:
    """Make a repository in an empty place, remember it under ``name``, return it with its recovery key.

    Its key holders: the recovery key, this machine, and a passphrase when one is given; or ``open``, readable by
    everyone who can read the place, when the owner wants no secret.
    """
    workspace.registry.check_repository_name(name)
    recovery: RecoveryKey | None = None
    holders: list[NewHolder] = []
    if without_secret:
        holders.append(OpenHolder())
    else:
        recovery = new_recovery_key()
        holders.append(IdentityHolder(RECOVERY_HOLDER, recovery.public))
        holders.append(IdentityHolder(workspace.machine_name, workspace.vault.public_key))
        if passphrase:
            holders.append(PassphraseHolder(PASSPHRASE_HOLDER, passphrase))
    with _place(workspace, name, location, options=options, credentials=credentials) as place:
        repository = create_in_store(
            workspace.open_store(place, True, cancel),
            holders=holders,
            clock=workspace.clock,
            entropy=workspace.entropy,
            compression=compression,
            pack_bytes_max=limits.PACK_BYTES_MAX if holds_files(location) else limits.PACK_BYTES_MAX_SERVICE,
        )
        config = _remember(workspace, name, place, repository)
    return CreatedRepository(config=config, recovery_key=recovery.secret if recovery else None)


def connect_repository(
    workspace: Workspace,
    *,
    name: str,
    location: str,
    unlock: Unlock,
    options: StoreOptions = _NO_OPTIONS,
    credentials: GivenCredentials = _NO_CREDENTIALS,
    cancel: Cancellation,
) -> RepositoryConfig:
    """Remember a repository that exists, opened with ``unlock``; this machine becomes one of its key holders.

    With a key that was left out when the data key was rotated it does not: the key is kept, sealed for this machine,
    and what it reads can be restored.
    """
    workspace.registry.check_repository_name(name)
    with _place(workspace, name, location, options=options, credentials=credentials) as place:
        repository = _open(workspace, workspace.open_store(place, False, cancel), unlock)
        if repository.keys.is_outdated:
            # Nobody can be made a holder with it, and what it still reads must be restorable all the same.
            workspace.vault.store(_kept_key(name), _secret_of(unlock))
        elif not isinstance(unlock, OpenUnlock) and not _opens_for_us(workspace, place, cancel=cancel):
            names = {each.name for each in repository.keys.holders()}
            repository.keys.add(IdentityHolder(_free_name(workspace.machine_name, names), workspace.vault.public_key))
        # Whoever opens a repository with a key has proven that the key is kept.
        has_none = isinstance(unlock, OpenUnlock) or repository.keys.is_outdated
        holder = None if has_none else repository.keys.recognise(unlock)
        return _remember(workspace, name, place, repository, proven=holder)


def change_credentials(
    workspace: Workspace, name: str, *, credentials: GivenCredentials, cancel: Cancellation
) -> RepositoryConfig:
    """Use other credentials for a repository's place from now on, once they have opened it.

    Whatever goes wrong, the old ones stay.
    """
    config = workspace.registry.repository(name)
    sealed_before = _load_sealed(workspace, config)
    changed = replace(config, credentials=credentials.reference)
    try:
        if credentials.sealed is not None:
            workspace.vault.store(sealed_name(name), credentials.sealed)
        _open_as_config(workspace, changed, cancel=cancel)
        workspace.registry.replace_repository(changed)
    except BaseException:
        _seal(workspace, name, sealed_before)
        raise
    if credentials.sealed is None:
        workspace.vault.forget(sealed_name(name))
    return changed


def _load_sealed(workspace: Workspace, config: RepositoryConfig) -> Secret | None:
    """Return what is sealed for a repository, None when nothing is, or nothing that this machine can open."""
    try:
        return workspace.vault.load(sealed_name(config.name))
    except SecretMissing:
        return None


def _seal(workspace: Workspace, name: str, secret: Secret | None) -> None:
    if secret is None:
        workspace.vault.forget(sealed_name(name))
    else:
        workspace.vault.store(sealed_name(name), secret)


@contextlib.contextmanager
def _place(
    workspace: Workspace, name: str, location: str, *, options: StoreOptions, credentials: GivenCredentials
) -> Iterator[RepositoryPlace]:
    """Give a new repository's place, its credentials sealed; they are forgotten again when the block fails."""
    if credentials.sealed is not None:
        workspace.vault.store(sealed_name(name), credentials.sealed)
    try:
        yield RepositoryPlace(
            location=location, options=options, credentials=credentials.reference, sealed_as=sealed_name(name)
        )
    except BaseException:
        if credentials.sealed is not None:
            workspace.vault.forget(sealed_name(name))
        raise


def _opens_for_us(workspace: Workspace, place: RepositoryPlace, *, cancel: Cancellation) -> bool:
    """Whether this machine's own key opens the repository. Its name among the holders proves nothing: a machine that
    was set up again has the same name and another key."""
    try:
        _open(workspace, workspace.open_store(place, False, cancel), IdentityUnlock(workspace.vault.identity))
    except WrongKey:
        return False
    return True


def _free_name(wanted: str, taken: Collection[str]) -> str:
    numbers = itertools.count(2)
    name = wanted
    while name in taken:
        name = f"{wanted}-{next(numbers)}"
    return name


def open_by_name(workspace: Workspace, name: str, *, browsing: bool = False, cancel: Cancellation) -> Repository:
    """Return a repository that was created or connected here, opened by this machine's own key, or by none where its
    owner wants no secret.

    With ``browsing``, what was read before may come from this machine's cache: for lists and plans, never where
    something is to be proven or changed.
    """
    return _open_as_config(workspace, workspace.registry.repository(name), browsing=browsing, cancel=cancel)


def _open_as_config(
    workspace: Workspace, config: RepositoryConfig, *, browsing: bool = False, cancel: Cancellation
) -> Repository:
    store = workspace.open_store(config.place, False, cancel)
    if browsing:
        store = workspace.cached(config.place, store)
    try:
        repository = _open(workspace, store, IdentityUnlock(workspace.vault.identity), epoch_seen=config.keys.epoch)
    except WrongKey as refused:
        try:
            kept = _kept_unlock(workspace, config.name)
            repository = _open(workspace, store, kept, epoch_seen=config.keys.epoch)
        except WrongKey:
            # What was tried first is what a person can do something about.
            raise refused from None
    return recognise_repository(workspace, config, repository)


def _kept_key(name: str) -> str:
    """Return the name in the vault of a key that is kept because this machine could not become a holder."""
    return f"repository/{name}/key"


def _kept_unlock(workspace: Workspace, name: str) -> Unlock:
    try:
        secret = workspace.vault.load(_kept_key(name))
    except SecretMissing:
        return OpenUnlock()
    is_identity = secret.reveal().lstrip().startswith(("AGE-SECRET-KEY-", "-----BEGIN "))
    return IdentityUnlock(secret) if is_identity else PassphraseUnlock(secret)


def _secret_of(unlock: Unlock) -> Secret:
    match unlock:
        case PassphraseUnlock(passphrase):
            return passphrase
        case IdentityUnlock(identity):
            return identity
        case OpenUnlock():
            return Secret("")


def open_with(workspace: Workspace, name: str, unlock: Unlock, *, cancel: Cancellation) -> Repository:
    """Return a repository that is known here, opened with another key than this machine's. ``WrongKey``.

    The key may be one that did not get the newest data key: then it reads what is older, and writes nothing.
    """
    config = workspace.registry.repository(name)
    store = workspace.open_store(config.place, False, cancel)
    repository = _open(workspace, store, unlock, epoch_seen=config.keys.epoch)
    check_identity(config, repository)
    return repository


def _open(workspace: Workspace, store: ObjectStore, unlock: Unlock, *, epoch_seen: int = 0) -> Repository:
    return open_repository(
        store, unlock=unlock, clock=workspace.clock, entropy=workspace.entropy, epoch_seen=epoch_seen
    )


def list_repositories(workspace: Workspace) -> list[RepositoryConfig]:
    """Return the repositories that are known here, by name; nothing is opened."""
    return workspace.registry.repositories()


def show_repository(workspace: Workspace, name: str, *, cancel: Cancellation) -> RepositoryOverview:
    """Return what a repository holds now."""
    config = workspace.registry.repository(name)
    repository = open_by_name(workspace, name, cancel=cancel)
    points = repository.points()
    holders = tuple(repository.keys.holders())
    return RepositoryOverview(
        config=config,
        location=repository.store_description,
        points=len(points),
        vms=len({each.facts.vm.uuid for each in points}),
        usage=repository.usage(),
        free_bytes=workspace.open_store(config.place, False, cancel).free_bytes(),
        holders=holders,
        data_key_epoch=repository.keys.epoch,
        advice=tuple(judge_keys(name, repository.keys, holders, workspace=workspace, proven=config.keys.proven)),
        damaged=tuple(sorted(repository.care.known_hits())),
        protection=protection_of(repository, name),
        findings=tuple(look_at_place(config.place)),
    )


def remove_repository(workspace: Workspace, name: str) -> None:
    """Forget a repository and the credentials sealed for it. Everything in it stays where it is."""
    workspace.registry.remove_repository(name)
    workspace.vault.forget(sealed_name(name))
    workspace.vault.forget(_kept_key(name))


def _remember(
    workspace: Workspace, name: str, place: RepositoryPlace, repository: Repository, *, proven: str | None = None
) -> RepositoryConfig:
    now = workspace.clock.now()
    known = KeyMemory(proven={} if proven is None else {proven: now})
    config = RepositoryConfig(
        name=name,
        location=place.location,
        repository=repository.id,
        added_at=now,
        options=place.options,
        credentials=place.credentials,
        keys=remembered_keys(known, repository),
    )
    workspace.registry.add_repository(config)
    return config
