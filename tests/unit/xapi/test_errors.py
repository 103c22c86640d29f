"""What an error of the pool advises is true whatever became of the run that met it."""

from __future__ import annotations

import pytest

from holdfast.core import HoldfastError, iter_error_classes
from holdfast.xapi import errors
from holdfast.xapi.errors import ExportDamaged, NbdConnectionLost, PoolConnectionLost, TaskVanished


def _of_this_package() -> list[type[HoldfastError]]:
    return [each for each in iter_error_classes() if each.__module__.startswith(errors.__name__.rpartition(".")[0])]


def test_no_advice_sends_the_reader_to_a_run_that_may_have_failed_for_good() -> None:
    assert [each.__name__ for each in _of_this_package() if "resume the run" in each.advice.lower()] == []


@pytest.mark.parametrize("interrupted", [ExportDamaged, NbdConnectionLost, PoolConnectionLost, TaskVanished])
def test_who_was_interrupted_is_told_to_run_again_and_that_nothing_is_sent_twice(
    interrupted: type[HoldfastError],
) -> None:
    assert "again" in interrupted.advice
    assert "what was stored is re-used" in interrupted.advice
