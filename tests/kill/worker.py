"""A process that works on a repository until somebody kills it: ``python -m tests.kill.worker PLACE ROLE SEED``.

A writer backs up disks whose content follows from the name of the run, so that whoever looks later knows what must be
there.
"""

from __future__ import annotations

import itertools
import json
import random
import sys

from holdfast.core import Cancellation, Clock, NoProgress, Secret, SystemClock, SystemEntropy
from holdfast.model import RunId, VmUuid
from holdfast.repository import (
    CannotTellLivePacks,
    DiskNoLongerStored,
    GcSettings,
    LeaseLost,
    OpenUnlock,
    PointUnknown,
    Repository,
    Safety,
    ScrubBudget,
    open_repository,
)
from holdfast.storage import ObjectStore, StoreCredentials, StoreOptions, StorePlace, open_store
from tests.sim.disks import SIZE_BYTES, Content, Palette, changed_places, mutate, write_content
from tests.support.repositories import disk_facts, key_ring, point_facts

__all__ = ["KILL_SAFETY", "content_of", "encode_place", "open_place", "reopen"]

KILL_SAFETY = Safety(
    lease_s=6,
    lease_renewal_s=2,
    lease_fence_s=1,
    clock_skew_s=3,
    resume_grace_s=5,
    collection_s=10,
    packs_announced=4,
)
"""Small margins, so that what dead processes left is seen within seconds; one machine has one clock."""

_GC = GcSettings(is_thorough=True, moved_live_part_max=0.9, poor_bytes_min=1)
"""Whatever is dead is worth punching, or copying what is live beside it."""

_VMS = [VmUuid(f"vm-{number}") for number in range(3)]
_POINTS_KEPT = 4


def encode_place(place: StorePlace) -> str:
    """Return a place as one argument of a command line. The credentials are those of a server for tests."""
    variables = {name: secret.reveal() for name, secret in place.credentials.values.items()}
    return json.dumps({"location": place.location, "endpoint": place.options.endpoint, "variables": variables})


def open_place(text: str) -> ObjectStore:
    """Return the store at a place that ``encode_place`` wrote."""
    told = json.loads(text)
    return open_store(
        StorePlace(
            location=told["location"],
            options=StoreOptions(endpoint=told["endpoint"]),
            credentials=StoreCredentials({name: Secret(value) for name, value in told["variables"].items()}),
        )
    )


def reopen(store: ObjectStore, *, clock: Clock | None = None) -> Repository:
    """Open the repository as a fresh process does."""
    return open_repository(
        store, unlock=OpenUnlock(), clock=clock or SystemClock(), entropy=SystemEntropy(), workers=1, safety=KILL_SAFETY
    )


def content_of(run: str) -> Content:
    """Return what the disk of a run holds."""
    chance = random.Random(run)
    content: Content = {}
    for _ in range(4):
        content = mutate(content, chance)
    return content


class Worker:
    """One process's view of the repository."""

    def __init__(self, store: ObjectStore, seed: int) -> None:
        self.repository = reopen(store)
        self.palette = Palette(key_ring(store))
        self.chance = random.Random(seed)
        self.name = f"{seed:08x}"

    def write(self, number: int) -> None:
        """Back up one VM, against its newest point when there is one."""
        run = RunId(f"r-{self.name}-{number}")
        vm = self.chance.choice(_VMS)
        content = content_of(run)
        points = self.repository.points(vm=vm)
        reference = points[-1] if points and self.chance.random() < 0.8 else None
        with self.repository.begin_run(run, cancel=Cancellation()) as writer:
            stored = None
            if reference is not None:
                changes = changed_places(content_of(reference.facts.run), content, self.chance)
                try:
                    stored = write_content(
                        writer, self.palette, content, changes=changes, reference=reference.disks[0].stored
                    )
                except DiskNoLongerStored:
                    stored = None
            if stored is None:
                stored = write_content(writer, self.palette, content, changes=None, reference=None)
            facts = point_facts(run, vm=vm, taken_at=SystemClock().now())
            writer.publish(facts, [(disk_facts(SIZE_BYTES), stored)])
        for point in self.repository.points(vm=vm)[:-_POINTS_KEPT]:
            try:
                self.repository.delete_point(point.id)
            except PointUnknown:
                continue

    def collect(self, _: int) -> None:
        """Collect garbage."""
        try:
            plan = self.repository.plan_gc(settings=_GC)
            self.repository.apply_gc(plan, settings=_GC, cancel=Cancellation())
        except CannotTellLivePacks as error:
            sys.exit(f"a point is damaged: {error}")

    def verify(self, _: int) -> None:
        """Verify everything; nothing may ever be found."""
        report = self.repository.verify(None, progress=NoProgress(), cancel=Cancellation())
        if not report.is_sound:
            sys.exit(f"damage: {report.damage} {report.damaged_points}")

    def scrub(self, _: int) -> None:
        """Read a few packs, those first that were not read for the longest time; nothing may ever be found."""
        budget = ScrubBudget(read_bytes=self.chance.choice([1, 500_000]))
        report = self.repository.care.scrub(budget, progress=NoProgress(), cancel=Cancellation())
        if not report.is_sound:
            sys.exit(f"damage: {report.damage} {report.damaged_points}")


def main(arguments: list[str]) -> None:
    """Work until killed."""
    place, role, seed = arguments
    worker = Worker(open_place(place), int(seed))
    works = {"write": worker.write, "collect": worker.collect, "verify": worker.verify, "scrub": worker.scrub}
    work = works[role]
    print("ready", flush=True)
    for number in itertools.count():
        try:
            work(number)
        except LeaseLost:
            continue


if __name__ == "__main__":
    main(sys.argv[1:])
