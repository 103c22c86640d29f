"""Progress is passed on at once and kept for the record."""

from __future__ import annotations

from types import TracebackType

from holdfast.core import ProgressTask
from holdfast.runs.progress import RecordedProgress
from holdfast.runs.record import TaskProgress


class Face:
    """Writes down what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[object, ...]] = []

    def start(self, what: str, *, total_bytes: int | None = None) -> ProgressTask:
        self.shown.append(("start", what, total_bytes))
        return self

    def note(self, message: str) -> None:
        self.shown.append(("note", message))

    def advance(self, done_bytes: int) -> None:
        self.shown.append(("advance", done_bytes))

    def retotal(self, total_bytes: int) -> None:
        self.shown.append(("retotal", total_bytes))

    def __enter__(self) -> ProgressTask:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shown.append(("end",))


def test_the_face_sees_everything() -> None:
    face = Face()
    progress = RecordedProgress(face=face, tell=lambda _: True)
    with progress.start("web: disk 0", total_bytes=10) as task:
        task.advance(4)
        task.retotal(12)
        progress.note("full read: no reference")
    assert face.shown == [
        ("start", "web: disk 0", 10),
        ("advance", 4),
        ("retotal", 12),
        ("note", "full read: no reference"),
        ("end",),
    ]


def test_a_note_that_was_told_before_is_not_shown_again() -> None:
    face = Face()
    RecordedProgress(face=face, tell=lambda _: False).note("full read")
    assert face.shown == []


def test_what_is_under_way_is_taken_once_per_change() -> None:
    progress = RecordedProgress(face=Face(), tell=lambda _: True)
    assert progress.take_change() is None
    with progress.start("web: disk 0") as first, progress.start("web: disk 1", total_bytes=7) as second:
        first.advance(3)
        first.advance(4)
        second.retotal(9)
        assert progress.take_change() == (
            TaskProgress(what="web: disk 0", done_bytes=7, total_bytes=None),
            TaskProgress(what="web: disk 1", done_bytes=0, total_bytes=9),
        )
        assert progress.take_change() is None
    assert progress.take_change() == ()
