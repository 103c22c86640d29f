"""``holdfast demo``: the main job, told and proven on the embedded lab pool."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from holdfast.cli.session import Common, Session, run_command
from holdfast.cli.story import Story
from holdfast.core import ExitStatus, HoldfastError, format_duration
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
                lab = spawn_lab(LabOptions(state_dir=chosen / "lab", scenario=scenario))
            took = format_duration(workspace.clock.monotonic_s() - began_s)
            session.out.say(f"A lab pool runs in its own process ({took}); its VMs have real file systems.")
            story = Story(session=session, workspace=workspace, lab=lab, folder=chosen)
            held = story.tell()
            session.out.result(story.document())
            if keep:
                kept = True
                story.tell_how_to_explore()
            return ExitStatus.OK if held else ExitStatus.FAILED
        finally:
            if not kept:
                if lab is not None:
                    lab.stop()
                shutil.rmtree(chosen, ignore_errors=True)

    return run_command(common, body)


def _work_folder(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    chosen = folder.expanduser().absolute()
    if chosen.exists() and any(chosen.iterdir()):
        raise DemoFolderInUse(chosen)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen
