"""A repository that was written once is restored for ever, and is still written the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from holdfast.core import Cancellation, ManualClock, NoProgress, SeededEntropy
from holdfast.repository import OpenUnlock, Repository, open_repository
from tests.golden.repository.make import FIRST, SECOND, made_objects
from tests.golden.repository.pages import PAGES, frozen_store
from tests.support.repositories import read_all

PROJECT = Path(__file__).parents[3]


@pytest.fixture(name="repository")
def frozen_repository() -> Repository:
    return open_repository(
        frozen_store(), unlock=OpenUnlock(), clock=ManualClock(), entropy=SeededEntropy(9), workers=0
    )


def test_its_points_restore_bit_identical(repository: Repository) -> None:
    disks = [point.disks[0].stored for point in repository.points()]
    assert [read_all(repository, disk, Cancellation()) for disk in disks] == [FIRST, SECOND]


def test_it_verifies(repository: Repository) -> None:
    assert repository.verify(None, progress=NoProgress(), cancel=Cancellation()).is_sound


def test_the_same_run_is_filed_under_the_same_names_today() -> None:
    # These names follow from keys, ids and times alone; others are random, and what only helps has come since.
    frozen = frozen_store()

    def names(objects: Iterable[str]) -> list[str]:
        return sorted(key for key in objects if key.startswith(("points/", "keys/", "holdfast.json")))

    assert names(made_objects()) == names(frozen.snapshot())
    assert made_objects()["holdfast.json"] == frozen.get("holdfast.json")


@pytest.mark.parametrize("page", PAGES)
def test_the_dumps_in_a_page_are_those_of_the_fixture(page: str) -> None:
    text = PAGES[page]()
    assert "byte by byte" in text, f"{page} has no dump"
    assert (PROJECT / page).read_text(encoding="utf-8") == text, "run ./dev docs"
