"""Points in a bucket with Object Lock: held from the first moment, and a canary is tried with the service itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from holdfast.core import ManualClock, NoProgress
from holdfast.repository import Verdict
from holdfast.storage import LockMode, MeteredStore, ObjectLocked, ObjectMissing, ObjectStore, Verb
from tests.support.repositories import World, image_of
from tests.support.s3_servers import new_moto_store, new_radosgw_store

IMAGE = image_of({number: number + 1 for number in range(4)}, count=4)
LOCKING: dict[str, Callable[[], ObjectStore]] = {
    "moto": lambda: new_moto_store(lock=LockMode.GOVERNANCE),
    "radosgw": lambda: new_radosgw_store(lock=LockMode.COMPLIANCE),
}


def world_in(store: ObjectStore) -> World:
    """Return a world by today's clock: the service's own decides about locks."""
    world = World(store, clock=ManualClock(datetime.now(UTC)))
    world.repository.protection.set_days(5, progress=NoProgress(), cancel=world.cancel)
    return world


@pytest.fixture(params=["moto", pytest.param("radosgw", marks=pytest.mark.judge)])
def world(request: pytest.FixtureRequest) -> World:
    return world_in(MeteredStore(LOCKING[request.param]()))


def test_a_point_and_all_it_needs_are_held_by_the_service(world: World) -> None:
    first = world.back_up(IMAGE, run="r-1")
    second = world.back_up_changes(IMAGE, [2], run="r-2", reference=first.disks[0].stored)
    for point in (first, second):
        until = world.store.locked_until(point.key)
        assert until is not None
        assert until >= point.published_at + timedelta(days=5) - timedelta(seconds=1)
        for key in (*world.keys("packs/"), "holdfast.json", "keys/open.json"):
            held = world.store.locked_until(key)
            assert held is not None
            assert held >= until, f"{key} ends before {point.id}"
        with pytest.raises(ObjectLocked):
            world.repository.delete_point(point.id)


def test_a_canary_is_tried_with_the_service_and_not_with_what_we_know_of_it(world: World) -> None:
    world.back_up(IMAGE, run="r-1")
    assert isinstance(world.store, MeteredStore)
    assert world.repository.protection.prove().verdict is Verdict.PROTECTED
    assert world.store.meters()[Verb.DELETE].failures == 1
    (canary,) = world.keys("canary/")
    assert world.repository.protection.prove().verdict is Verdict.PROTECTED
    assert world.keys("canary/") == [canary]


def test_a_bucket_without_locks_is_never_called_protected() -> None:
    world = world_in(new_moto_store())
    world.back_up(IMAGE, run="r-1")
    assert world.repository.protection.prove().verdict is Verdict.NOT_PROTECTED


def test_what_the_service_does_not_hold_goes_whatever_is_believed_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store = LOCKING["moto"]()
    inner: object = store
    while hasattr(inner, "_inner"):
        inner = inner._inner
    monkeypatch.setattr(inner, "locked_until", lambda key: datetime.now(UTC) + timedelta(days=5))
    store.put("canary/one", b"x")
    store.delete("canary/one")
    with pytest.raises(ObjectMissing):
        store.size("canary/one")
