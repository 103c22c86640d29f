"""``holdfast demo``: the main job, told and proven on the embedded lab pool."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from holdfast.cli.session import Common, Session, run_command
from holdfast.cli.story import Story
from holdfast.core import Cancelled, ExitStatus, HoldfastError, format_duration, mapped
from holdfast.daemon import Settings, build_workspace
from holdfast.lab import LabHandle, LabOptions, spawn_lab

__all__ = ["demo"]

_NO_COMMON = Common()


class DemoFolderInUse(HoldfastError):
    """The folder for a demonstration that stays has something in it."""

    code = "demo.folder-in-use"
    exit_status = ExitStatus.BUSY
    effect = "Nothing was changed."

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} is not empty")
        self.folder = str(folder)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return (
            "Choose another with --folder, or end the earlier demonstration: "
            f"holdfast lab stop --state {self.folder}/lab; rm -r {self.folder}"
        )


class DemoFolderUnusable(HoldfastError):
    """The folder for a demonstration cannot be made or read."""

    code = "demo.folder-unusable"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed."
    advice = "Choose another with --folder."

    def __init__(self, folder: Path, *, why: str) -> None:
        super().__init__(f"{folder} cannot be used: {why}")
        self.folder = str(folder)


class DemoStopped(HoldfastError):
    """The demonstration was stopped before its end."""

    code = "demo.stopped"
    exit_status = ExitStatus.INTERRUPTED
    effect = "Only the demonstration's own files were concerned; they are removed."
    advice = "Run 'holdfast demo' again to see all of it."

    def __init__(self) -> None:
        super().__init__("the demonstration was stopped")


def demo(
    *,
    keep: Annotated[bool, Parameter(negative="")] = False,
    folder: Path | None = None,
    scenario: str = "demo",
    common: Common = _NO_COMMON,
) -> int:
    """Show the main job on a simulated pool: back up, change, back up again, lose a VM, restore it, prove it.

    Needs no pool, no root and no account. Everything it tells is measured while it runs; the exit status says whether
    every proof held. It takes a few minutes and about 6 GB of disk, and removes all of it afterwards.

    Example: holdfast demo --keep

    Parameters
    ----------
    keep
        Leave the lab pool and the repository running and print commands to explore them.
    folder
        Where to work; a temporary folder when left out.
    scenario
        What the lab holds: demo, or tiny for a quick look.
    """

    def body(session: Session) -> ExitStatus:
        chosen = _work_folder(folder)
        lab: LabHandle | None = None
        kept = False
        try:
            workspace = build_workspace(Settings(home=chosen / "home"))
            began_s = workspace.clock.monotonic_s()
            with session.out.aside.status("Starting a lab pool in its own process, making file systems for its VMs …"):
                options = LabOptions(state_dir=chosen / "lab", scenario=scenario, dies_with_parent=not keep)
                lab = spawn_lab(options, cancel=session.cancel)
            took = format_duration(workspace.clock.monotonic_s() - began_s)
            session.out.say(f"A lab pool runs in its own process ({took}); its VMs have real file systems.")
            story = Story(session=session, workspace=workspace, lab=lab, folder=chosen)
            held = story.tell()
            session.out.result(story.document())
            if keep:
                kept = True
                story.tell_how_to_explore()
            return ExitStatus.OK if held else ExitStatus.FAILED
        except Cancelled as stopped:
            raise DemoStopped from stopped
        finally:
            if not kept:
                if lab is not None:
                    lab.stop()
                _clear(chosen, keep_folder=folder is not None)

    return run_command(common, body)


def _clear(chosen: Path, *, keep_folder: bool) -> None:
    """Remove what the demonstration made, and the folder too unless somebody else had made it."""
    for entry in chosen.iterdir():
        shutil.rmtree(entry, ignore_errors=True)
    if not keep_folder:
        chosen.rmdir()


def _work_folder(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    chosen = folder.expanduser().absolute()
    with mapped(OSError, to=lambda cause: DemoFolderUnusable(chosen, why=str(cause))):
        if chosen.exists() and any(chosen.iterdir()):
            raise DemoFolderInUse(chosen)
    with mapped(OSError, to=lambda cause: DemoFolderUnusable(chosen, why=str(cause))):
        chosen.mkdir(parents=True, exist_ok=True)
    return chosen
