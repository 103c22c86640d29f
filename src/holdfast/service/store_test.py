"""Whether the place of a repository keeps its promises, found out by trying."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core import Cancellation, Progress
from holdfast.service.config import RepositoryPlace
from holdfast.service.workspace import Workspace
from holdfast.storage import (
    FOLDER,
    Finding,
    ObjectStore,
    SelfTest,
    StoreEmpty,
    StoreMissing,
    find_mount,
    folder_of,
    judge_mount,
    run_self_test,
    scheme_of,
)

__all__ = ["examine_place", "examine_repository", "look_at_place"]


def examine_repository(
    workspace: Workspace, name: str, *, with_lock: bool = False, progress: Progress, cancel: Cancellation
) -> SelfTest:
    """Return what a trial of a repository's place found; the repository itself is neither opened nor changed."""
    place = workspace.registry.repository(name).place
    return examine_place(workspace, place, with_lock=with_lock, progress=progress, cancel=cancel)


def examine_place(
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


def look_at_place(place: RepositoryPlace) -> Sequence[Finding]:
    """Return what can be seen of a place from here without asking it: how a folder is mounted, nothing of others."""
    if scheme_of(place.location) != FOLDER:
        return ()
    mount = find_mount(folder_of(place.location))
    return () if mount is None else tuple(judge_mount(mount))


def _opened(workspace: Workspace, place: RepositoryPlace, cancel: Cancellation) -> ObjectStore:
    try:
        return workspace.open_store(place, False, cancel)
    except (StoreEmpty, StoreMissing):
        return workspace.open_store(place, True, cancel)
