"""What a collection remembers is a formula: so many bytes for each pack in the store, whatever the points are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from holdfast.core import SeededEntropy
from holdfast.model import VmUuid
from holdfast.repository.layout import PackId, pack_key
from holdfast.repository.packs.pack_table import PackTable, PackUse
from holdfast.repository.packs.stored_disk import StoredDisk
from holdfast.repository.points.point import publish_point
from holdfast.repository.space.gc import plan_gc
from holdfast.repository.space.gc_settings import GcSettings
from holdfast.repository.vault import Vault
from holdfast.storage import MemoryStore, ObjectInfo
from tests.support.repositories import TEST_SAFETY, World, disk_facts, image_of, key_ring, point_facts

_PACK_BYTES = 64 * 1024 * 1024
_BYTES_PER_PACK_MAX = 115
"""The formula of leases.md."""


class ManyPacks(MemoryStore):
    """A store that lists many packs, none of which is there."""

    def __init__(self, packs: int) -> None:
        super().__init__()
        ids = np.sort(np.frombuffer(SeededEntropy(3).token_bytes(16 * packs), dtype="S16"))
        self.ids = ids.tobytes()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix != "packs/":
            return super().list(prefix)
        packs = (PackId(self.ids[at : at + 16]) for at in range(0, len(self.ids), 16))
        return (ObjectInfo(pack_key(pack), _PACK_BYTES) for pack in packs)


def world_of(packs: int, points: int) -> tuple[Vault, World]:
    """Return a vault whose points use a part of many packs."""
    store = ManyPacks(packs)
    world = World()
    template = world.back_up(image_of({0: 2}, count=1), run="r-0").disks[0].stored
    store.restore(world.memory.snapshot())
    vault = Vault(store, key_ring(store), clock=world.clock, entropy=world.entropy)
    for number in range(points):
        first = number * 500
        ids = [PackId(store.ids[16 * at : 16 * at + 16]) for at in range(first, first + 1000)]
        use = PackUse(length_bytes=_PACK_BYTES, references=1000, live_bytes=_PACK_BYTES - 8_000_000)
        stored = StoredDisk(
            size_bytes=template.size_bytes,
            root=template.root,
            content_hash=template.content_hash,
            sizes=template.sizes,
            packs=PackTable(dict.fromkeys(ids, use)),
        )
        facts = point_facts(f"r-{number}", vm=VmUuid(f"vm-{number}"))
        publish_point(vault, facts, [(disk_facts(65536), stored)], check_before=lambda: None)
    return vault, world


@pytest.mark.slow(reason="plans for a hundred thousand packs, 6 TB")
def test_a_plan_takes_a_bounded_number_of_bytes_for_each_pack() -> None:
    packs = 100_000
    vault, _ = world_of(packs, points=20)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        plan = plan_gc(vault, safety=TEST_SAFETY, settings=GcSettings())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.kept_packs == 500 * 19 + 1000
    assert len(plan.dead) == packs - plan.kept_packs
    assert len(plan.poor) == plan.kept_packs
    assert (peak - before) / packs < _BYTES_PER_PACK_MAX
