"""Why the records of runs refuse: one class per cause, with what it means and what to do.

They live apart from the code that raises them so that naming an error never imports the database library (0.4 s),
which commands that touch no run must not pay for.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.core import ExitStatus, HoldfastError, Retry
from holdfast.model import RunId, RunStatus

__all__ = [
    "FlowUnknown",
    "RunAlreadyExists",
    "RunFinished",
    "RunFlowChanged",
    "RunIsRunning",
    "RunNotFound",
    "RunStateLost",
    "RunsDatabaseBusy",
    "RunsDatabaseDamaged",
    "RunsDatabaseNewer",
    "RunsDiskFull",
    "RunsFolderNotWritable",
    "RunsUnavailable",
]


class RunsDatabaseDamaged(HoldfastError):
    """A database of the runs folder cannot be read as one."""

    code = "runs.database-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "Restore points are untouched: repositories describe themselves. Run history and open work are in doubt."

    def __init__(self, *, path: Path, detail: str) -> None:
        super().__init__(f"{path} is not a readable runs database: {detail}")
        self.path, self.detail = str(path), detail

    def next_step(self) -> str:
        """Return what to do with this very file."""
        return (
            f"Move {self.path} and its -wal and -shm files aside, then run the command again: new ones are made. "
            "Check the pools afterwards for objects tagged by Holdfast that the lost ledger would have named."
        )


class RunsDatabaseNewer(HoldfastError):
    """The runs database was written by a newer version of Holdfast."""

    code = "runs.database-newer"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was read or changed."
    advice = "Run the newer version of Holdfast that wrote it, or point this one at another state folder."

    def __init__(self, *, path: Path, version: int, version_max: int) -> None:
        super().__init__(f"{path} has schema {version}, this version of Holdfast reads up to {version_max}")
        self.path, self.version, self.version_max = str(path), version, version_max


class RunsFolderNotWritable(HoldfastError):
    """The folder that holds the run records cannot be written."""

    code = "runs.folder-not-writable"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was started: a run that cannot be recorded must not touch a pool."

    def __init__(self, *, path: Path, detail: str) -> None:
        super().__init__(f"cannot write run records in {path}: {detail}")
        self.path, self.detail = str(path), detail

    def next_step(self) -> str:
        """Return what to change about this very folder."""
        return f"Make {self.path} writable for this user, or choose another state folder with HOLDFAST_HOME."


class RunsDiskFull(HoldfastError):
    """The disk that holds the run records has no space left."""

    code = "runs.disk-full"
    retry = Retry.LATER
    exit_status = ExitStatus.NO_SPACE
    effect = "Existing restore points are untouched; the run stopped at its last recorded step and can be resumed."

    def __init__(self, *, path: Path) -> None:
        super().__init__(f"no space left to write {path}")
        self.path = str(path)

    def next_step(self) -> str:
        """Return where space is missing."""
        return f"Free some space beside {self.path}, then resume the run with 'holdfast run resume'."


class RunsDatabaseBusy(HoldfastError):
    """Another process kept the runs database locked for longer than we wait."""

    code = "runs.database-busy"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    effect = "Nothing was changed by this command."
    advice = "Run the command again; if it stays so, look for a stopped process that holds the file open."

    def __init__(self, *, path: Path) -> None:
        super().__init__(f"{path} stayed locked by another process")
        self.path = str(path)


class RunsUnavailable(HoldfastError):
    """The runs database failed in a way we have no special name for."""

    code = "runs.unavailable"
    retry = Retry.LATER
    effect = "Existing restore points are untouched; an unfinished run can be resumed."
    advice = "Look at the cause above (often the disk that holds the state folder), then resume the run."

    def __init__(self, *, path: Path, detail: str) -> None:
        super().__init__(f"{path} could not be used: {detail}")
        self.path, self.detail = str(path), detail


class RunNotFound(HoldfastError):
    """No run has this id."""

    code = "run.not-found"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was changed."
    advice = "List the runs with 'holdfast run list'; old finished ones are forgotten."

    def __init__(self, *, run_id: RunId) -> None:
        super().__init__(f"no run {run_id}")
        self.run_id = str(run_id)


class RunAlreadyExists(HoldfastError):
    """A run with this id was started before."""

    code = "run.exists"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was started."
    advice = "Resume the existing run with 'holdfast run resume', or start a new one under a new id."

    def __init__(self, *, run_id: RunId) -> None:
        super().__init__(f"run {run_id} exists already")
        self.run_id = str(run_id)


class RunIsRunning(HoldfastError):
    """The run is being carried out by a living process, perhaps one that was faster than this one."""

    code = "run.is-running"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    effect = "Nothing was changed; the other process goes on."
    advice = "Watch it with 'holdfast run show', or stop it with 'holdfast run cancel'."

    def __init__(self, *, run_id: RunId) -> None:
        super().__init__(f"run {run_id} is being carried out by another process")
        self.run_id = str(run_id)


class RunFinished(HoldfastError):
    """The run has ended for good, so it cannot be resumed or stopped."""

    code = "run.finished"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed."
    advice = "See what it did with 'holdfast run show'; start a new run to do the work again."

    def __init__(self, *, run_id: RunId, status: RunStatus) -> None:
        super().__init__(f"run {run_id} has ended: {status.value}")
        self.run_id, self.status = str(run_id), status.value


class FlowUnknown(HoldfastError):
    """The run is of a kind that this version of Holdfast cannot carry out."""

    code = "run.kind-unknown"
    exit_status = ExitStatus.REFUSED
    effect = "The run was left as it is."
    advice = "Resume it with the version of Holdfast that started it, or close it with 'holdfast run cancel'."

    def __init__(self, *, run_id: RunId, kind: str) -> None:
        super().__init__(f"run {run_id} is of the unknown kind {kind!r}")
        self.run_id, self.kind = str(run_id), kind


class RunFlowChanged(HoldfastError):
    """The program's steps are no longer the ones this run has recorded, so going on could do the wrong thing."""

    code = "run.flow-changed"
    exit_status = ExitStatus.REFUSED
    effect = "The run was closed; restore points that it had published stay, and what it left on a pool is swept."
    advice = "Start a new run; blocks that this one has stored already are re-used."

    def __init__(self, *, run_id: RunId, detail: str) -> None:
        super().__init__(f"run {run_id} was started by another version of Holdfast: {detail}")
        self.run_id, self.detail = str(run_id), detail


class RunStateLost(HoldfastError):
    """The recorded results of the run's completed steps are gone, so it cannot be resumed without repeating them."""

    code = "run.state-lost"
    exit_status = ExitStatus.DAMAGED
    effect = "The run was closed; restore points that it had published stay, and what it left on a pool is swept."
    advice = "Start a new run; blocks that this one has stored already are re-used."

    def __init__(self, *, run_id: RunId, path: Path) -> None:
        super().__init__(f"{path} no longer knows the completed steps of run {run_id}")
        self.run_id, self.path = str(run_id), str(path)
