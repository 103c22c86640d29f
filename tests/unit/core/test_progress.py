"""Work that nobody watches costs nothing and hides no failure."""

from __future__ import annotations

import pytest

from holdfast.core import NoProgress, Progress


def test_a_watcher_that_is_not_there_accepts_everything() -> None:
    progress: Progress = NoProgress()
    progress.note("full read: no reference snapshot")
    with progress.start("web: disk 0", total_bytes=10) as task:
        task.advance(7)
        task.retotal(20)
    with progress.start("web: disk 1") as other:
        assert other is not task


def test_a_failure_inside_a_task_comes_out() -> None:
    with pytest.raises(OSError, match="cut"), NoProgress().start("web: disk 0"):
        raise OSError("cut")
