"""A repository with every kind of object and frame is restored, verified and gone on with for ever."""

from __future__ import annotations

import pytest

from holdfast.core import Cancellation, ManualClock, NoProgress, SeededEntropy
from holdfast.model import RunId
from holdfast.repository import Damage, KeyOutdated, Repository, open_repository
from holdfast.repository.layout import FrameKind, ObjectKind, parse_pack_key
from holdfast.storage import MemoryStore
from tests.golden.repository.full_dumps import full_store, full_unlock
from tests.golden.repository.make_full import IMAGES
from tests.support.repositories import read_all


def opened(store: MemoryStore, *, holder: str = "machine") -> Repository:
    """Open the frozen repository as one of its holders."""
    return open_repository(store, unlock=full_unlock(holder), clock=ManualClock(), entropy=SeededEntropy(9), workers=0)


@pytest.mark.parametrize("holder", ["machine", "server"])
def test_every_point_restores_bit_identical(holder: str) -> None:
    repository = opened(full_store(), holder=holder)
    found = {
        point.facts.run: read_all(repository, point.disks[0].stored, Cancellation()) for point in repository.points()
    }
    assert found == IMAGES
    assert {each.run for each in repository.summaries().points} == set(IMAGES), "and the catalogues list the same"


def test_what_was_damaged_is_known_and_harms_nobody() -> None:
    repository = opened(full_store())
    report = repository.verify(None, progress=NoProgress(), cancel=Cancellation())
    assert report.is_sound
    assert report.damage == ()


def test_every_kind_of_object_and_of_frame_is_in_it() -> None:
    store = full_store()
    heads = [store.get(info.key)[:6] for info in store.list("")]
    # The head of an index is a sealed object that does not begin its object.
    assert {head[5] for head in heads if head[:4] == b"HFSO"} == {*ObjectKind} - {ObjectKind.INDEX}
    assert {info.key.partition("/")[0] for info in store.list("")} >= {"canary", "features", "index", "keys"}
    shelf = opened(store)._vault.shelf
    frames = set()
    for info in store.list("packs/"):
        pack = parse_pack_key(info.key)
        assert pack is not None
        frames |= {(int(row["kind"]), int(row["count"])) for row in shelf.open(pack).trailer.rows}
    data = {(int(FrameKind.DATA), count) for count in (1, 2, 3, 4)}
    assert frames == {*data, (int(FrameKind.PATCH), 1), (int(FrameKind.MAP), 1)}


def test_who_was_left_out_lists_the_old_point_and_is_told_why_it_does_not_restore() -> None:
    repository = opened(full_store(), holder="leaver")
    (point,) = repository.points()
    with pytest.raises(Damage, match="moved/"):
        read_all(repository, point.disks[0].stored, Cancellation())
    with pytest.raises(KeyOutdated):
        repository.begin_run(RunId("r-99"), cancel=Cancellation())
