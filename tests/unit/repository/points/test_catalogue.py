"""A listing shows the same with catalogues, without them, and with lying ones; with them it reads no point."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast.model import VmUuid
from holdfast.repository import PointSummary, RestorePoint, summary_of
from holdfast.repository.layout import CATALOGUE_PREFIX, POINTS_PREFIX
from holdfast.repository.points.catalogue import tidy_catalogue
from holdfast.repository.vault import Vault
from holdfast.storage import MemoryStore, MeteredStore
from holdfast.storage.wrapper import Verb
from tests.support.repositories import World, disk_facts, image_of, key_ring, point_facts, write_whole


def publish(world: World, number: int, *, vms: int = 1) -> list[RestorePoint]:
    """Publish a run with a point for each of some VMs."""
    with world.begin(f"r-{number}") as writer:
        image = image_of({0: number + 1}, count=2)
        stored = write_whole(writer, image)
        facts = world.facts(f"r-{number}")
        return [
            writer.publish(
                point_facts(facts.run, vm=VmUuid(f"vm-{vm}"), taken_at=facts.taken_at),
                [(disk_facts(len(image)), stored)],
            )
            for vm in range(vms)
        ]


def vault_of(world: World) -> Vault:
    """Return what the engine's parts work on."""
    return Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)


def listed(world: World) -> list[PointSummary]:
    listing = world.repository.summaries()
    assert listing.damaged == ()
    return list(listing.points)


def without_length(summary: PointSummary) -> tuple[object, ...]:
    return tuple(getattr(summary, name) for name in summary.__struct_fields__ if name != "length_bytes")


def test_a_listing_shows_what_the_points_say() -> None:
    world = World()
    points = [point for number in range(3) for point in publish(world, number, vms=2)]
    found = listed(world)
    expected = sorted(points, key=lambda each: (each.facts.taken_at, each.published_at, each.key))
    assert [without_length(each) for each in found] == [without_length(summary_of(each)) for each in expected]
    first = found[0]
    assert (first.id, first.vm, first.taken_at) == (expected[0].id, expected[0].facts.vm, expected[0].facts.taken_at)
    assert (first.sizes, first.consistency) == (expected[0].sizes, expected[0].facts.consistency)
    assert first.disks[0].sizes == expected[0].disks[0].stored.sizes


def test_a_listing_with_catalogues_reads_no_point() -> None:
    memory = MemoryStore()
    world = World(MeteredStore(memory), memory=memory)
    for number in range(5):
        publish(world, number, vms=3)
    tidy_catalogue(vault_of(world))
    store = MeteredStore(memory)
    world.store = store
    world.reopen()
    before = store.meters()[Verb.GET].requests
    assert len(listed(world)) == 15
    catalogues = len(list(memory.list(CATALOGUE_PREFIX)))
    assert store.meters()[Verb.GET].requests - before == catalogues


@pytest.mark.parametrize("loss", ["all", "one", "damaged"])
def test_without_its_catalogues_a_listing_shows_the_same(loss: str) -> None:
    world = World()
    for number in range(4):
        publish(world, number)
    before = listed(world)
    keys = [info.key for info in world.memory.list(CATALOGUE_PREFIX)]
    state = dict(world.memory.snapshot())
    for key in keys if loss == "all" else keys[:1]:
        state[key] = state[key][:-1] + bytes([state[key][-1] ^ 1])
        if loss != "damaged":
            del state[key]
    world.memory.restore(state)
    assert listed(world) == before
    tidy_catalogue(vault_of(world))
    assert listed(world) == before


def test_a_point_that_is_gone_is_not_listed_whatever_a_catalogue_says() -> None:
    world = World()
    (gone,) = publish(world, 1)
    (kept,) = publish(world, 2)
    world.repository.delete_point(gone.id)
    assert [each.id for each in listed(world)] == [kept.id]


def test_a_point_of_another_length_than_its_row_says_is_read_and_told_as_damaged() -> None:
    world = World()
    (point,) = publish(world, 1)
    state = dict(world.memory.snapshot())
    state[point.key] = state[point.key][:-3]
    world.memory.restore(state)
    listing = world.repository.summaries()
    assert listing.points == ()
    assert [each.object for each in listing.damaged] == [point.key]


def test_many_catalogues_become_few_and_rows_of_points_that_are_gone_go() -> None:
    world = World()
    points = [publish(world, number)[0] for number in range(40)]
    assert len(list(world.memory.list(CATALOGUE_PREFIX))) == 40
    for point in points[:10]:
        world.repository.delete_point(point.id)
    before = listed(world)
    tidy_catalogue(vault_of(world))
    assert len(list(world.memory.list(CATALOGUE_PREFIX))) == 1
    assert listed(world) == before
    tidy_catalogue(vault_of(world))
    assert len(list(world.memory.list(CATALOGUE_PREFIX))) == 1


def test_catalogues_of_points_that_are_all_gone_go() -> None:
    world = World()
    for number in range(3):
        for point in publish(world, number):
            world.repository.delete_point(point.id)
    tidy_catalogue(vault_of(world))
    assert list(world.memory.list(CATALOGUE_PREFIX)) == []
    assert list(world.memory.list(POINTS_PREFIX)) == []


def test_points_of_one_second_follow_what_they_were_read_against() -> None:
    world = World()
    image = image_of({0: 1}, count=2)
    previous = None
    made = []
    with world.begin("r-1") as writer:
        stored = write_whole(writer, image)
    for number in range(6):
        with world.begin(f"r-{number + 2}") as writer:
            facts = replace(point_facts(f"r-{number + 2}"), previous=previous)
            previous = writer.publish(facts, [(disk_facts(len(image)), stored)]).id
            made.append(previous)
    assert [each.id for each in listed(world)] == made


def test_a_clock_that_ran_ahead_makes_no_point_the_newest() -> None:
    world = World()
    image = image_of({0: 1}, count=2)
    for number, ahead in enumerate([timedelta(days=9), timedelta(0)]):
        with world.begin(f"r-{number}") as writer:
            stored = write_whole(writer, image)
            facts = world.facts(f"r-{number}")
            writer.publish(replace(facts, taken_at=facts.taken_at + ahead), [(disk_facts(len(image)), stored)])
    assert [each.run for each in listed(world)] == ["r-0", "r-1"]
