"""A repository whose data key was rotated is restored for ever; an old key reads of it what is old."""

from __future__ import annotations

import pytest

from holdfast.core import Cancellation, ManualClock, NoProgress, Secret, SeededEntropy
from holdfast.model import RunId
from holdfast.repository import IdentityUnlock, KeyOutdated, Repository, open_repository
from holdfast.storage import MemoryStore
from tests.golden.repository.make_epochs import FOLDER, IMAGES, LEAVER_FILE, MACHINE_FILE
from tests.support.repositories import read_all


def opened(key_file: str) -> Repository:
    """Open the frozen repository with one of its keys."""
    store = MemoryStore()
    objects = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.is_file()}
    store.restore({key: path.read_bytes() for key, path in objects.items() if path.parent.name != "keys-of-this-test"})
    unlock = IdentityUnlock(Secret((FOLDER / key_file).read_text()))
    return open_repository(store, unlock=unlock, clock=ManualClock(), entropy=SeededEntropy(9), workers=0)


def test_points_of_all_epochs_restore_bit_identical() -> None:
    repository = opened(MACHINE_FILE)
    disks = [point.disks[0].stored for point in repository.points()]
    assert [read_all(repository, disk, Cancellation()) for disk in disks] == IMAGES
    assert repository.verify(None, progress=NoProgress(), cancel=Cancellation()).is_sound
    assert repository.keys.epoch == 2


def test_who_left_before_the_first_rotation_reads_the_first_point_and_writes_nothing() -> None:
    repository = opened(LEAVER_FILE)
    points = repository.points()
    assert [read_all(repository, point.disks[0].stored, Cancellation()) for point in points] == IMAGES[:1]
    assert len(repository.damaged_points()) == 2
    with pytest.raises(KeyOutdated):
        repository.begin_run(RunId("r-9"), cancel=Cancellation())
