"""Progress away from a terminal: a line now and then, one at the end, with size, rate and time left."""

from __future__ import annotations

import io

from rich.console import Console

from holdfast.cli.progress import LineProgress, TerminalProgress, open_progress
from holdfast.core import MIB, ManualClock


def _console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=120, soft_wrap=True), stream


def test_lines_come_every_ten_seconds_and_at_the_end() -> None:
    console, stream = _console(terminal=False)
    clock = ManualClock()
    with LineProgress(console, clock=clock, quiet=False) as progress, progress.start("web", total_bytes=100 * MIB) as t:
        for _ in range(20):
            clock.advance(1)
            t.advance(MIB)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "web: 10.0 MiB of 100 MiB, 1.00 MiB/s, 1 min 30 s left"
    assert lines[-1] == "web: 20.0 MiB in 20.0 s, 1.00 MiB/s"
    assert len(lines) == 3


def test_quiet_is_silent() -> None:
    console, stream = _console(terminal=False)
    with LineProgress(console, clock=ManualClock(), quiet=True) as progress:
        progress.note("x")
        with progress.start("y", total_bytes=1) as task:
            task.advance(1)
    assert stream.getvalue() == ""


def test_a_failed_task_does_not_claim_to_be_done() -> None:
    console, stream = _console(terminal=False)
    try:
        with LineProgress(console, clock=ManualClock(), quiet=False) as progress, progress.start("y") as task:
            task.advance(5)
            raise ValueError
    except ValueError:
        pass
    assert stream.getvalue() == ""


def test_a_terminal_gets_bars_and_the_notes_stay() -> None:
    console, stream = _console(terminal=True)
    opened = open_progress(console, clock=ManualClock(), quiet=False)
    assert isinstance(opened, TerminalProgress)
    with opened as progress:
        progress.note("changes come from CBT")
        with progress.start("web [disk]", total_bytes=10) as task:
            task.advance(5)
            task.retotal(20)
    assert "changes come from CBT" in stream.getvalue()


def test_quiet_on_a_terminal_has_no_bars() -> None:
    console, _ = _console(terminal=True)
    assert isinstance(open_progress(console, clock=ManualClock(), quiet=True), LineProgress)
