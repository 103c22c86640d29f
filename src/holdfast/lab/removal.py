"""Removing a lab for good: what its folder holds, and then only that.

Invariant: nothing is removed that no lab wrote, nor anything of a lab that runs or is being started.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from holdfast.core import ExitStatus, HoldfastError
from holdfast.lab.founding import FOUNDING_FILE, LabWishes, resume_options
from holdfast.lab.process import LAB_LOG, read_lab

__all__ = ["LabNotThere", "LabRemoval", "LabStillRuns", "apply_removal", "plan_removal"]

_LOCK = Path("disks") / "in-use"
_SECTOR_BYTES = 512
_WRITTEN = (
    "disks",
    "pool.db",
    "pool.db-shm",
    "pool.db-wal",
    "certificate.pem",
    "key.pem",
    FOUNDING_FILE,
    LAB_LOG,
    f"{LAB_LOG}.1",
    "lab.json",
)


class LabNotThere(HoldfastError):
    """The folder holds no lab."""

    code = "lab.not-there"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was removed."
    advice = "Name the folder of the lab with --state."

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} holds no lab pool")
        self.folder = str(folder)


class LabStillRuns(HoldfastError):
    """A lab was to be removed that runs, or is being started."""

    code = "lab.still-runs"
    exit_status = ExitStatus.BUSY
    effect = "The lab that runs goes on; nothing was removed."

    def __init__(self, folder: Path) -> None:
        super().__init__(f"the lab pool in {folder} runs")
        self.folder = str(folder)

    def next_step(self) -> str:
        """Return how to end it."""
        return f"Stop it with 'holdfast lab stop --state {self.folder}', then delete it."


@dataclass(frozen=True, slots=True, kw_only=True)
class LabRemoval:
    """What goes when a lab is removed."""

    folder: Path
    scenario: str
    paths: tuple[Path, ...]
    length_bytes: int
    """What they take on the machine's disk."""
    stays: tuple[str, ...]
    """What else is in the folder, by name; no lab wrote it."""


def plan_removal(folder: Path) -> LabRemoval:
    """Return what would go. ``LabNotThere``; ``LabStillRuns`` for a lab that runs or is being started."""
    if not (folder / "pool.db").is_file():
        raise LabNotThere(folder)
    _check_idle(folder)
    beside = [each for each in folder.iterdir() if each.is_dir() and (each / "pool.db").is_file()]
    paths = [folder / name for name in _WRITTEN if (folder / name).exists()]
    for each in beside:
        paths += plan_removal(each).paths
    ours = {path.relative_to(folder).parts[0] for path in paths}
    return LabRemoval(
        folder=folder,
        scenario=resume_options(folder, LabWishes()).scenario,
        paths=tuple(paths),
        length_bytes=sum(map(_taken_bytes, paths)),
        stays=tuple(sorted(each.name for each in folder.iterdir() if each.name not in ours)),
    )


def apply_removal(plan: LabRemoval) -> None:
    """Remove what the plan says, and the folders that are empty then. May be called twice."""
    _check_idle(plan.folder)
    for path in plan.paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in plan.paths} | {plan.folder}, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _check_idle(folder: Path) -> None:
    lab = read_lab(folder)
    if lab is not None and lab.is_alive:
        raise LabStillRuns(folder)
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        raise LabStillRuns(folder) from cause
    finally:
        os.close(descriptor)


def _taken_bytes(path: Path) -> int:
    """Return what a file, or all below a folder, takes; holes take nothing."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return sum(each.stat().st_blocks * _SECTOR_BYTES for each in files)
