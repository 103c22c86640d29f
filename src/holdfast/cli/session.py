"""One command's frame: the options all commands share, Ctrl-C, errors told in three parts, the exit status.

Invariant: every command ends through here, so that every end has its document, its message and its exit status, and
Ctrl-C always lets the program clean up; a second Ctrl-C ends it at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

from cyclopts import Parameter

from holdfast.cli.output import Output
from holdfast.cli.progress import LineProgress, TerminalProgress, open_progress
from holdfast.core import Cancellation, ExitStatus, HoldfastError, configure_log, get_log
from holdfast.daemon import Settings, build_workspace, read_settings
from holdfast.service import Workspace

__all__ = ["Common", "Session", "run_command"]


_log = get_log(__name__)


class Unexpected(HoldfastError):
    """An error that Holdfast does not understand: a mistake of the program."""

    code = "cli.unexpected"
    effect = "Published restore points are untouched; what this command was doing is not completed."
    advice = "Please report this with the messages above. 'holdfast run list' shows whether a run can be continued."

    def __init__(self, mistake: Exception) -> None:
        super().__init__(f"{type(mistake).__name__}: {mistake}")


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    json: Annotated[bool, Parameter(negative="", help="Print one JSON document instead of text.")] = False
    quiet: Annotated[bool, Parameter(negative="", help="No progress.")] = False
    verbose: Annotated[int, Parameter(name=["--verbose", "-v"], count=True, help="Log events; twice for all.")] = 0
    home: Annotated[Path | None, Parameter(help="Where Holdfast keeps its own files; default $HOLDFAST_HOME.")] = None


_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP too: a terminal that goes away, as a lost ssh session does, pauses a run instead of killing it."""

_SHOW_CURSOR = b"\x1b[?25h"
"""Live bars hide the cursor; whoever ends the process at once gives it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a command's body works with."""

    settings: Settings
    workspace: Workspace
    out: Output
    cancel: Cancellation
    quiet: bool

    def progress(self) -> TerminalProgress | LineProgress:
        """Return the progress display; use it in a ``with`` block."""
        return open_progress(self.out.aside, clock=self.workspace.clock, quiet=self.quiet or self.out.as_json)


def run_command(common: Common, body: Callable[[Session], ExitStatus]) -> int:
    """Run a command's body and return the process's exit status."""
    out = Output(as_json=common.json)
    configure_log(verbosity=common.verbose, as_json=common.json)
    cancel = Cancellation()
    settings = read_settings(home=common.home)
    session = Session(
        settings=settings, workspace=build_workspace(settings), out=out, cancel=cancel, quiet=common.quiet
    )
    try:
        with _listening(cancel, out):
            return int(body(session))
    except HoldfastError as error:
        return out.fail(error)
    except BrokenPipeError:
        # The reader went away (``| head``); nothing can be told to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitStatus.FAILED)
    except Exception as mistake:
        _log.error("cli.crashed", exc_info=mistake)
        return out.fail(Unexpected(mistake))


@contextlib.contextmanager
def _listening(cancel: Cancellation, out: Output) -> Iterator[None]:
    """Let signals pause what the block does; whoever listened before listens again afterwards."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if cancel.is_cancelled:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR)
            os._exit(int(ExitStatus.INTERRUPTED))
        out.warn("Stopping; this takes a few seconds. Once more to stop at once.")
        cancel.cancel(reason=f"stopped by {signal.Signals(number).name}")

    before = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
