"""Whether the place of a repository keeps its promises, found out by trying."""

from __future__ import annotations

from holdfast.core import Cancellation, Progress
from holdfast.service.config import RepositoryPlace
from holdfast.service.place_view import look_at_place
from holdfast.service.repositories import GivenCredentials
from holdfast.service.workspace import Workspace
from holdfast.storage import (
    ObjectStore,
    SelfTest,
    StoreEmpty,
    StoreMissing,
    StoreOptions,
    run_self_test,
)

__all__ = ["examine_location", "examine_repository"]


_SEALED_FOR_NOW = "test/credentials"


def examine_repository(
    workspace: Workspace, name: str, *, with_lock: bool = False, progress: Progress, cancel: Cancellation
) -> SelfTest:
    """Return what a trial of a repository's place found; the repository itself is neither opened nor changed.

    ``StoreMissing``, ``StoreEmpty``: its file system is not mounted, and what would be tried lies below it.
    """
    place = workspace.registry.repository(name).place
    workspace.open_store(place, False, cancel)
    return _examine(workspace, place, with_lock=with_lock, progress=progress, cancel=cancel)


def examine_location(
    workspace: Workspace,
    location: str,
    *,
    options: StoreOptions,
    credentials: GivenCredentials,
    with_lock: bool = False,
    progress: Progress,
    cancel: Cancellation,
) -> SelfTest:
    """Return what a trial of a place found where no repository needs to be; credentials are not remembered."""
    place = RepositoryPlace(
        location=location, options=options, credentials=credentials.reference, sealed_as=_SEALED_FOR_NOW
    )
    if credentials.sealed is not None:
        workspace.vault.store(_SEALED_FOR_NOW, credentials.sealed)
    try:
        return _examine(workspace, place, with_lock=with_lock, progress=progress, cancel=cancel)
    finally:
        if credentials.sealed is not None:
            workspace.vault.forget(_SEALED_FOR_NOW)


def _examine(
    workspace: Workspace,
    place: RepositoryPlace,
    *,
    with_lock: bool = False,
    progress: Progress,
    cancel: Cancellation,
) -> SelfTest:
    """Return what a trial of any place found. A folder that does not exist yet is made, as for a repository.

    Raises what keeps it from being tried: ``StoreUnreachable``, ``StoreFull``, ``StoreNotWritable``, and what opening
    a place of its kind raises.
    """
    return run_self_test(
        _opened(workspace, place, cancel),
        # Clean-up goes on after Ctrl-C.
        _opened(workspace, place, Cancellation()),
        with_lock=with_lock,
        known=look_at_place(place),
        clock=workspace.clock,
        entropy=workspace.entropy,
        progress=progress,
        cancel=cancel,
    )


def _opened(workspace: Workspace, place: RepositoryPlace, cancel: Cancellation) -> ObjectStore:
    try:
        return workspace.open_store(place, False, cancel)
    except (StoreEmpty, StoreMissing):
        return workspace.open_store(place, True, cancel)
