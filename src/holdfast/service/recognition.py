"""Whether a repository is the one that it was: compared with what this machine remembers, at every opening.

Invariant: nothing is read from or written to a repository that answers under a known name with another id or key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from holdfast.core import ExitStatus, HoldfastError, get_log
from holdfast.repository import HolderFacts, KeyDesk, Repository
from holdfast.service.config import KeyMemory, RepositoryConfig
from holdfast.service.workspace import Workspace

__all__ = [
    "DataKeyExchanged",
    "RepositoryExchanged",
    "check_identity",
    "judge_keys",
    "recognise_repository",
    "remembered_keys",
]

_log = get_log(__name__)


class RepositoryExchanged(HoldfastError):
    """Another repository, or the same with another key, lies where the known one was."""

    code = "repository.exchanged"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read from it or written to it. The repository that was there may be damaged or moved away."

    def __init__(self, *, name: str, store: str, what: str, expected: str, found: str) -> None:
        super().__init__(f"{store} is not the repository {name!r} that is known here: {what} {found}, not {expected}")
        self.name, self.store, self.what, self.expected, self.found = name, store, what, expected, found

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return (
            "Find out who put it there: with its key somebody else may read what is stored from now on. If it was you, "
            f"'holdfast repository remove {self.name}' forgets the old one, and 'holdfast repository connect' trusts "
            "the new one. Otherwise bring the old one back from a copy."
        )


class DataKeyExchanged(HoldfastError):
    """The repository shows an older data key than was seen here, or another one of the same number."""

    code = "repository.data-key-exchanged"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or written: what is stored now could be readable for somebody who was left out."

    def __init__(self, *, name: str, store: str, epoch: int) -> None:
        super().__init__(f"{store}: repository {name!r} no longer has the data key of epoch {epoch} that was seen here")
        self.name, self.store, self.epoch = name, store, epoch

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return (
            "If the store was set back to an older state, bring keys/ and epochs/ back from the newer one. If it is "
            f"meant to be so, 'holdfast repository remove {self.name}' and 'holdfast repository connect' trust it anew."
        )


def recognise_repository(workspace: Workspace, config: RepositoryConfig, repository: Repository) -> Repository:
    """Return the repository when it is the one that is remembered; remember what is new of it.

    ``RepositoryExchanged``, ``DataKeyExchanged``.
    """
    known, store = config.keys, repository.store_description
    check_identity(config, repository)
    if known.epoch_fingerprint and repository.keys.fingerprint_of(known.epoch) != known.epoch_fingerprint:
        raise DataKeyExchanged(name=config.name, store=store, epoch=known.epoch)
    keys = remembered_keys(known, repository)
    if keys != known:
        try:
            workspace.registry.replace_repository(replace(config, keys=keys))
        except HoldfastError as error:
            # A restore must not fail because our own folder is full. The next opening remembers.
            _log.warning("repository.not-remembered", repository=config.name, reason=str(error))
    return repository


def check_identity(config: RepositoryConfig, repository: Repository) -> None:
    """Return when a repository has the id and the key of the one that is remembered. ``RepositoryExchanged``."""
    known, store = config.keys, repository.store_description
    if repository.id != config.repository:
        raise RepositoryExchanged(
            name=config.name, store=store, what="its id is", expected=config.repository, found=repository.id
        )
    if known.fingerprint and repository.fingerprint != known.fingerprint:
        raise RepositoryExchanged(
            name=config.name,
            store=store,
            what="the fingerprint of its key is",
            expected=known.fingerprint,
            found=repository.fingerprint,
        )


def remembered_keys(known: KeyMemory, repository: Repository) -> KeyMemory:
    """Return what is to be remembered of a repository's keys, now that it was opened."""
    epoch = max(known.epoch, repository.keys.epoch)
    return replace(
        known,
        fingerprint=repository.fingerprint,
        epoch=epoch,
        epoch_fingerprint=repository.keys.fingerprint_of(epoch) or known.epoch_fingerprint,
    )


def judge_keys(
    name: str, keys: KeyDesk, holders: Sequence[HolderFacts], *, workspace: Workspace, proven: Mapping[str, datetime]
) -> Iterator[str]:
    """Yield what is wrong with who can open the repository ``name``, in sentences for its owner."""
    if keys.is_outdated:
        yield "The key in use did not get the newest data key: it reads what is older, and nothing is written."
        return
    machine_key = workspace.vault.public_key
    current = [each for each in holders if each.is_current]
    if any(each.kind == "open" for each in current):
        yield "Everybody who can read the store can open it."
        return
    others = [each for each in current if each.public_key != machine_key]
    if len(current) == 1:
        yield f"Only {current[0].name} can open it. Add a second key holder: holdfast repository key add {name} HOLDER"
    elif not others:
        yield f"Only this machine can open it; without it nobody can restore: holdfast repository key add {name} HOLDER"
    if others and not any(each.name in proven for each in others):
        yield f"No key but this machine's was ever proven to open it: holdfast repository key drill {name}"
    for each in holders:
        if not each.is_current:
            yield f"{each.name} was left out when the data key was rotated, and opens only what is older."
