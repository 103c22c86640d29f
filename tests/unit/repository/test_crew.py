"""Worker threads: bounded, in order, and gone when they are not needed."""

from __future__ import annotations

import threading

import pytest

from holdfast.core import Cancellation, Cancelled
from holdfast.repository.crew import WORKERS_MAX, Crew, default_workers, in_order


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int) -> None:
    assert list(in_order(lambda item: item * item, range(50), workers=workers, ahead=4)) == [n * n for n in range(50)]


def test_work_ahead_is_bounded() -> None:
    taken = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda item: item, items(), workers=2, ahead=3)  # type: ignore[arg-type,var-annotated]
    next(results)
    assert len(taken) <= 5
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_is_raised_where_its_result_would_come(workers: int) -> None:
    results = in_order(lambda item: 1 // item, [1, 1, 0, 1], workers=workers, ahead=8)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_tasks_beyond_the_bound_wait_and_can_be_cancelled() -> None:
    crew = Crew(workers=1)
    hold = threading.Event()
    cancel = Cancellation()
    futures = [crew.submit(hold.wait, cancel=cancel) for _ in range(crew.tasks_max)]  # type: ignore[arg-type]
    cancel.cancel()
    with pytest.raises(Cancelled):
        crew.submit(hold.set, cancel=cancel)
    hold.set()
    for future in futures:
        future.result()
    crew.close()


def test_a_task_that_is_cancelled_before_it_began_makes_room() -> None:
    crew = Crew(workers=1)
    hold = threading.Event()
    cancel = Cancellation()
    futures = [crew.submit(hold.wait, cancel=cancel) for _ in range(crew.tasks_max)]  # type: ignore[arg-type]
    assert futures[-1].cancel()
    crew.submit(lambda: None, cancel=cancel)
    hold.set()
    crew.close()


def test_without_workers_a_task_is_done_at_once() -> None:
    crew = Crew(workers=0)
    done: list[int] = []
    assert crew.submit(lambda: done.append(1), cancel=Cancellation()).done()
    assert done == [1]
    crew.close()


def test_the_machine_decides_within_bounds() -> None:
    assert 1 <= default_workers() <= WORKERS_MAX
