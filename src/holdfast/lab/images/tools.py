"""The file system tools of this machine: found, and run without a shell, an inherited environment or a prompt.

Invariant: a tool that is absent is ``None``, which every caller has an answer for; a tool that fails is an error that
carries what it said.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.core import HoldfastError, mapped

__all__ = ["NO_TOOLS", "E2fsprogs", "ToolFailed", "find_tool", "run_tool"]

_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/opt/e2fsprogs/sbin"
"""An ordinary user's PATH often lacks the sbin folders, where e2fsprogs lives."""

_LINES_TOLD = 5
_TIMEOUT_S = 600.0
"""Making or checking 4 GiB takes seconds; a tool that waits for something would wait for ever."""


class ToolFailed(HoldfastError):
    """A program that the lab runs said that it failed."""

    code = "lab.tool-failed"
    effect = "The lab's disk was not changed."
    advice = "Read what the tool said; 'holdfast lab start' works without it when it is not installed."

    def __init__(self, *, tool: str, status: int, said: str) -> None:
        last = " / ".join(said.splitlines()[-_LINES_TOLD:])
        super().__init__(f"{tool} ended with status {status}: {last}")
        self.tool, self.status, self.said = tool, status, last


@dataclass(frozen=True, slots=True, kw_only=True)
class E2fsprogs:
    """Which of the tools this machine has."""

    mke2fs: Path | None
    debugfs: Path | None
    e2fsck: Path | None

    @classmethod
    def find(cls) -> E2fsprogs:
        """Return the tools of this machine."""
        return cls(mke2fs=find_tool("mke2fs"), debugfs=find_tool("debugfs"), e2fsck=find_tool("e2fsck"))


NO_TOOLS = E2fsprogs(mke2fs=None, debugfs=None, e2fsck=None)
"""A machine without e2fsprogs."""


def run_tool(tool: Path, arguments: Sequence[str], *, statuses: Collection[int] = (0,)) -> tuple[int, str]:
    """Run ``tool`` and return its exit status and everything it said. ``ToolFailed`` for any other status."""
    # Nothing of ours is inherited; mke2fs and debugfs stamp what they make with this time instead of now.
    environment = {"PATH": _FOLDERS, "LC_ALL": "C", "E2FSPROGS_FAKE_TIME": "1767225600", "E2FSCK_TIME": "1767225600"}
    with mapped(OSError, subprocess.TimeoutExpired, to=lambda cause: _failed(tool, -1, str(cause))):
        done = subprocess.run(
            [str(tool), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=_TIMEOUT_S,
            check=False,
        )
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode not in statuses:
        raise _failed(tool, done.returncode, said)
    return done.returncode, said


def find_tool(name: str) -> Path | None:
    """Return where the program is; None when this machine lacks it."""
    found = shutil.which(name, path=_FOLDERS)
    return None if found is None else Path(found)


def _failed(tool: Path, status: int, said: str) -> ToolFailed:
    return ToolFailed(tool=tool.name, status=status, said=said)
