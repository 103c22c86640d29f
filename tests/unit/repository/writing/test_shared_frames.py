"""Frames of several neighbours, and batches of scattered runs: less space and fewer requests, the same blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES
from holdfast.model import Coverage, DataRun
from holdfast.repository import StoredDisk
from holdfast.repository.layout import LEAF_BLOCKS, FrameKind, PackId
from holdfast.repository.packs.entries import Entries
from holdfast.repository.writing.block_storer import BlockStorer
from tests.support.repositories import World, block_of, image_of, read_all, write_whole

DISTINCT = [content for content in range(2, 200) if content % 3]
"""Contents that differ, of both kinds: some compress, some do not."""


def counts(world: World, pack: PackId) -> list[int]:
    """Return how many blocks each data frame of a pack holds."""
    rows = world.repository._vault.shelf.open(pack).trailer.rows
    return [int(row["count"]) for row in rows if row["kind"] == FrameKind.DATA and row["index"] == 0]


class Spy:
    """A block storer that tells which blocks it is given at once."""

    def __init__(self, inner: BlockStorer, batches: list[list[int]]) -> None:
        self._inner = inner
        self._batches = batches

    def store(self, numbers: Entries, data: memoryview) -> None:
        self._batches.append(numbers.tolist())
        self._inner.store(numbers, data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def stored(world: World, runs: dict[int, list[int]], *, blocks: int, run: str = "r-1") -> StoredDisk:
    """Store a disk in runs: the first block of each, and its contents."""
    with world.begin(run) as writer:
        disk = writer.open_disk(blocks * BLOCK_BYTES, coverage=Coverage.WHOLE, reference=None)
        for first, contents in sorted(runs.items()):
            disk.write(DataRun(first * BLOCK_BYTES, b"".join(block_of(content) for content in contents)))
        return disk.finish()


def test_new_neighbours_share_a_frame_of_up_to_four() -> None:
    world = World()
    disk = stored(world, {0: DISTINCT[:11]}, blocks=11)
    assert counts(world, disk.root.pack) == [4, 4, 3]


def test_neighbours_may_come_in_several_runs() -> None:
    world = World()
    disk = stored(world, {0: DISTINCT[:2], 2: DISTINCT[2:3], 3: DISTINCT[3:6]}, blocks=6)
    assert counts(world, disk.root.pack) == [4, 2]


def test_blocks_that_stand_alone_have_frames_of_their_own() -> None:
    world = World()
    disk = stored(world, {0: DISTINCT[:1], 2: DISTINCT[1:2], 4: [DISTINCT[2], 0, DISTINCT[3]]}, blocks=8)
    assert counts(world, disk.root.pack) == [1, 1, 1, 1]


def test_a_known_block_between_new_ones_parts_them() -> None:
    world = World()
    disk = stored(world, {0: [2, 4, 2, 6, 8]}, blocks=5)
    assert counts(world, disk.root.pack) == [2, 2]
    assert read_all(world.repository, disk, world.cancel) == image_of({0: 2, 1: 4, 2: 2, 3: 6, 4: 8}, count=5)


def test_each_block_of_a_shared_frame_is_known_by_itself() -> None:
    world = World()
    disk = stored(world, {0: [2, 4, 6, 8]}, blocks=4)
    image = image_of({1: 6, 3: 4}, count=4)
    with world.begin("r-2") as writer:
        other = write_whole(writer, image)
    assert other.sizes.new_bytes == 0
    use, trailer = other.packs.get(disk.root.pack), world.repository._vault.shelf.open(disk.root.pack).trailer
    assert use is not None
    assert (use.references, use.live_bytes) == (2, trailer.share(1) + trailer.share(2))
    assert read_all(world.repository, other, world.cancel) == image


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 10, 12]), min_size=1, max_size=40))
def test_the_shares_of_a_disk_add_up_to_its_frames(contents: list[int]) -> None:
    world = World()
    image = image_of(dict(enumerate(contents)), count=len(contents))
    point = world.back_up(image, run="r-1")
    disk = point.disks[0].stored
    trailer = world.repository._vault.shelf.open(disk.root.pack).trailer
    distinct = {content for content in contents if content}
    use = disk.packs.get(disk.root.pack)
    assert use is not None
    again = len([content for content in contents if content]) - len(distinct)
    assert use.references == len(trailer) + again
    if not again:
        assert use.live_bytes == int(trailer.rows["length"].sum())
    assert world.restore(point) == image
    assert world.verify().is_sound


def test_scattered_runs_travel_together_and_runs_far_apart_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    numbers: list[list[int]] = []
    with world.begin("r-1") as writer:
        disk = writer.open_disk(3 * LEAF_BLOCKS * BLOCK_BYTES, coverage=Coverage.WHOLE, reference=None)
        monkeypatch.setattr(disk, "_storer", Spy(disk._storer, numbers))
        blocks = [0, 5, 4000, LEAF_BLOCKS - 1, LEAF_BLOCKS, 2 * LEAF_BLOCKS + 7]
        for number, block in enumerate(blocks):
            disk.write(DataRun(block * BLOCK_BYTES, block_of(2 * number + 2)))
        stored_disk = disk.finish()
    assert numbers == [blocks[:4], blocks[4:5], blocks[5:]]
    source = world.repository.source(stored_disk, cancel=world.cancel)
    assert [source.read(block * BLOCK_BYTES, BLOCK_BYTES) == block_of(2 * n + 2) for n, block in enumerate(blocks)]


def test_a_batch_that_is_full_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    batches: list[list[int]] = []
    with world.begin("r-1") as writer:
        disk = writer.open_disk(200 * BLOCK_BYTES, coverage=Coverage.WHOLE, reference=None)
        monkeypatch.setattr(disk, "_storer", Spy(disk._storer, batches))
        disk.write(DataRun(0, block_of(2) * 40))
        disk.write(DataRun(40 * BLOCK_BYTES, block_of(2) * 24))
        assert len(batches) == 1
        disk.write(DataRun(64 * BLOCK_BYTES, block_of(2) * 40))
        disk.write(DataRun(110 * BLOCK_BYTES, block_of(2) * 40))
        assert len(batches) == 2
        disk.finish()
    assert [len(batch) for batch in batches] == [64, 40, 40]
