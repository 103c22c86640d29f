"""Finding the lab that a command is about: by the folder of its state, running or not."""

from __future__ import annotations

from pathlib import Path

from holdfast.cli.session import Session
from holdfast.core import ExitStatus, HoldfastError
from holdfast.lab import LabHandle, read_lab

__all__ = ["NoLabRuns", "find_running_lab", "lab_folder", "running_lab"]


class NoLabRuns(HoldfastError):
    """No lab pool runs on that state folder."""

    code = "lab.not-running"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was changed."

    def __init__(self, folder: Path) -> None:
        super().__init__(f"no lab pool runs on {folder}")
        self.folder = str(folder)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return "Start one with 'holdfast lab start', or name its folder with --state."


def lab_folder(session: Session, folder: Path | None) -> Path:
    """Return the folder that the command names, or the one of the settings."""
    return folder.expanduser().absolute() if folder is not None else session.settings.lab_folder


def running_lab(session: Session, folder: Path | None) -> LabHandle:
    """Return the lab of that folder. ``NoLabRuns`` when none was started there or it has ended."""
    lab = find_running_lab(session, folder)
    if lab is None:
        raise NoLabRuns(lab_folder(session, folder))
    return lab


def find_running_lab(session: Session, folder: Path | None) -> LabHandle | None:
    """Return the lab of that folder; None when none was started there or it has ended."""
    lab = read_lab(lab_folder(session, folder))
    return lab if lab is not None and lab.is_alive else None
