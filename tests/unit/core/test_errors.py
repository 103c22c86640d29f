"""An error says what happened, what it means for the data and what to do, and keeps its cause."""

from __future__ import annotations

import pytest

from holdfast.core import Cancelled, ExitStatus, HoldfastError, Retry, iter_error_classes, mapped


class _DiskBusy(HoldfastError):
    """A disk that somebody else holds."""

    code = "test.disk-busy"
    retry = Retry.LATER

    def __init__(self, *, disk: str, tries: int) -> None:
        super().__init__(f"disk {disk} is busy after {tries} tries")
        self.disk, self.tries = disk, tries
        self.holder: object = object()
        self._hidden = "not for anyone"

    def next_step(self) -> str:
        return f"Detach {self.disk} and run again."


def test_an_error_that_says_nothing_else_promises_untouched_points() -> None:
    error = HoldfastError("x")
    assert error.retry is Retry.NEVER
    assert error.exit_status is ExitStatus.FAILED
    assert error.effect == "No restore point was changed."
    assert error.next_step() == error.advice


def test_facts_are_the_plain_public_fields() -> None:
    assert _DiskBusy(disk="d1", tries=3).facts() == {"disk": "d1", "tries": 3}


def test_the_advice_may_depend_on_the_facts() -> None:
    assert _DiskBusy(disk="d1", tries=3).next_step() == "Detach d1 and run again."


def test_a_library_error_is_mapped_and_kept_as_the_cause() -> None:
    with pytest.raises(_DiskBusy) as caught, mapped(OSError, to=lambda cause: _DiskBusy(disk=str(cause), tries=1)):
        raise OSError("d9")
    assert caught.value.disk == "d9"
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_that_was_not_named_passes_unchanged() -> None:
    with pytest.raises(KeyError), mapped(OSError, to=lambda cause: _DiskBusy(disk="d", tries=1)):
        raise KeyError("x")


def test_an_error_of_ours_is_never_mapped_again() -> None:
    with pytest.raises(Cancelled), mapped(Exception, to=lambda cause: _DiskBusy(disk="d", tries=1)):
        raise Cancelled("stop")


def test_every_subclass_is_found_once() -> None:
    class DeepDown(_DiskBusy):
        """Two levels below the root."""

        code = "test.deep-down"

    found = [each for each in iter_error_classes() if each in (_DiskBusy, DeepDown, Cancelled)]
    assert sorted(each.__name__ for each in found) == ["Cancelled", "DeepDown", "_DiskBusy"]


def test_exit_statuses_keep_their_numbers_for_ever() -> None:
    assert {each.name: int(each) for each in ExitStatus} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "UNREACHABLE": 3,
        "REFUSED": 4,
        "NOT_FOUND": 5,
        "DAMAGED": 6,
        "NO_SPACE": 7,
        "PARTIAL": 8,
        "BUSY": 9,
        "INTERRUPTED": 130,
    }
