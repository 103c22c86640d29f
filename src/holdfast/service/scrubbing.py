"""Scrub and healing: is what was stored still whole, since when is that known, and what can be brought back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from holdfast.core import Cancellation, ExitStatus, HoldfastError, Progress
from holdfast.model import PointId
from holdfast.repository import (
    CheckGrade,
    Donor,
    HealingDone,
    ImageDonor,
    RepositoryDonor,
    ScrubBudget,
    ScrubReport,
)
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace

__all__ = ["DonorUnclear", "ImageUnreadable", "check_grades", "heal", "scrub", "scrub_status"]


class DonorUnclear(HoldfastError):
    """It is not clear where the content of damaged blocks shall come from."""

    code = "repository.donor-unclear"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Give either --from-mirror, or --from-image together with --disk, or neither."

    def __init__(self) -> None:
        super().__init__("an image needs the disk that it is of, and is given without a mirror")


class ImageUnreadable(HoldfastError):
    """The image of a disk cannot be opened."""

    code = "repository.image-unreadable"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was changed."
    advice = "Check the path and who may read it; the image must be a raw one."

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"image {path}: {reason}")
        self.path, self.reason = path, reason


def scrub(
    workspace: Workspace, repository: str, budget: ScrubBudget, *, progress: Progress, cancel: Cancellation
) -> ScrubReport:
    """Read what was not read for the longest time, within a budget; heal what can be healed, and tell the rest."""
    opened = open_by_name(workspace, repository, cancel=cancel)
    return opened.care.scrub(budget, progress=progress, cancel=cancel)


def scrub_status(workspace: Workspace, repository: str, *, cancel: Cancellation) -> ScrubReport:
    """Return what is known of a repository's data without reading it."""
    return open_by_name(workspace, repository, cancel=cancel).care.scrub_status(cancel=cancel)


def heal(
    workspace: Workspace,
    repository: str,
    *,
    from_mirror: str | None = None,
    from_image: Path | None = None,
    disk: str | None = None,
    progress: Progress,
    cancel: Cancellation,
) -> HealingDone:
    """Heal what is known to be damaged: from the repository itself, and from another one or an image of a disk."""
    if (from_image is None) != (disk is None) or (from_image is not None and from_mirror is not None):
        raise DonorUnclear
    opened = open_by_name(workspace, repository, cancel=cancel)
    donor: Donor | None = None
    with contextlib.ExitStack() as open_things:
        if from_mirror is not None:
            donor = RepositoryDonor(open_by_name(workspace, from_mirror, cancel=cancel), cancel=cancel)
        elif from_image is not None and disk is not None:
            try:
                donor = open_things.enter_context(ImageDonor(from_image, disk=disk))
            except OSError as cause:
                raise ImageUnreadable(path=str(from_image), reason=cause.strerror or str(cause)) from cause
        return opened.care.heal(donor, progress=progress, cancel=cancel)


def check_grades(
    workspace: Workspace, repository: str, keys: Iterable[str], *, cancel: Cancellation
) -> dict[PointId, CheckGrade]:
    """Return since when the data of restore points is checked, by the names of their objects."""
    return open_by_name(workspace, repository, cancel=cancel).care.grades(keys)
