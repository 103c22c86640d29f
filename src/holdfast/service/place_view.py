"""What can be seen of a repository's place from here, without asking it."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.service.config import RepositoryPlace
from holdfast.storage import FOLDER, Finding, find_mount, folder_of, judge_mount, scheme_of

__all__ = ["look_at_place"]


def look_at_place(place: RepositoryPlace) -> Sequence[Finding]:
    """Return what can be seen of a place from here without asking it: how a folder is mounted, nothing of others."""
    if scheme_of(place.location) != FOLDER:
        return ()
    mount = find_mount(folder_of(place.location))
    return () if mount is None else tuple(judge_mount(mount))
