"""A repository's whole life in each service: back up, back up again, verify, restore, delete, collect."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.storage import LockMode, MeteredStore, ObjectStore, Verb
from tests.support.repositories import World, image_of
from tests.support.s3_servers import new_azurite_store, new_moto_store, new_radosgw_store

SERVICES: dict[str, Callable[[], ObjectStore]] = {
    "moto": new_moto_store,
    "moto-locked": lambda: new_moto_store(lock=LockMode.GOVERNANCE),
    "radosgw": new_radosgw_store,
    "radosgw-locked": lambda: new_radosgw_store(lock=LockMode.COMPLIANCE),
    "azurite": new_azurite_store,
}


@pytest.fixture(
    params=[name if name.startswith("moto") else pytest.param(name, marks=pytest.mark.judge) for name in SERVICES]
)
def world(request: pytest.FixtureRequest) -> World:
    return World(MeteredStore(SERVICES[request.param]()))


def test_a_repository_lives_in_a_bucket_as_in_a_folder(world: World) -> None:
    first_image = image_of({n: 10 + n for n in range(12)}, count=40)
    second_image = image_of({**{n: 10 + n for n in range(12)}, 3: 1003, 30: 1030}, count=40)
    first = world.back_up(first_image, run="one")
    second = world.back_up_changes(second_image, [3, 30], run="two", reference=first.disks[0].stored)
    for _ in range(2):
        assert world.restore(first) == first_image
        assert world.restore(second) == second_image
        assert world.verify().is_sound
        world.reopen()
    world.repository.delete_point(second.id)
    world.clock.advance(100_000)
    assert world.collect() == 1
    world.reopen()
    assert world.restore(first) == first_image
    assert world.verify().is_sound


def test_few_requests_are_made_for_an_increment(world: World) -> None:
    image = image_of({n: 2 * n + 10 for n in range(12)}, count=40)
    first = world.back_up(image, run="one")
    assert isinstance(world.store, MeteredStore)
    before = world.store.meters()
    world.back_up_changes(image_of({3: 1003}, count=40), [3], run="two", reference=first.disks[0].stored)
    after = world.store.meters()
    asked = {verb: after[verb].requests - before[verb].requests for verb in Verb}
    # Two leases come and go, one pack, its index, the point; what was known is read again from nowhere else.
    assert sum(asked.values()) <= 30, asked
