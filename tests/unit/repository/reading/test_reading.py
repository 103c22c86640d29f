"""Reading a disk whose blocks lie in every form that the format allows: whole, at random, into a file."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, NoProgress, SeededEntropy
from holdfast.model import FourSizes, VmUuid
from holdfast.repository import MissingLog, NodeAddress, PackDamaged, PackMissing, PackTable, StoredDisk
from holdfast.repository.layout import PACK_HEADER, PAGE_BYTES, Encoding, FrameKind, PackId, pack_key
from holdfast.repository.packs.disk_map import Leaf, Root, node_id, write_leaf, write_root
from holdfast.repository.packs.pack import OpenPack, PackShelf
from holdfast.repository.packs.read_plan import FrameRead
from holdfast.repository.reading.read_ahead import WINDOW_BLOCKS
from holdfast.repository.records.moved import write_moves
from holdfast.repository.sealing import KeyRing
from holdfast.repository.vault import Vault
from holdfast.restore import write_raw
from holdfast.storage import StoreUnreachable
from tests.support.hand_packs import HandFrame, block_id, put_pack
from tests.support.repositories import World, block_of, image_of, key_ring, read_all

PAGES = BLOCK_BYTES // PAGE_BYTES


@dataclass
class Shelf:
    """Packs by hand, and what lies in their slots."""

    world: World
    keys: KeyRing
    blocks: dict[NodeAddress, bytes] = field(default_factory=dict)
    nodes: dict[NodeAddress, HandFrame] = field(default_factory=dict)
    bases: dict[NodeAddress, NodeAddress] = field(default_factory=dict)
    packs: int = 0

    def put(self, frames: list[HandFrame], contents: list[bytes]) -> PackId:
        self.packs += 1
        pack = put_pack(self.world.store, self.keys, frames, seed=100 + self.packs)
        self.blocks.update({NodeAddress(pack, slot): block for slot, block in enumerate(contents)})
        return pack

    def data(self, groups: list[list[int]], *, encoding: Encoding) -> PackId:
        contents = [[block_of(content) for content in group] for group in groups]
        frames = [
            HandFrame(ids=[block_id(self.keys, block) for block in blocks], plain=b"".join(blocks), encoding=encoding)
            for blocks in contents
        ]
        return self.put(frames, [block for blocks in contents for block in blocks])

    def patches(self, wanted: list[tuple[NodeAddress, dict[int, int]]]) -> PackId:
        frames, contents = [], []
        for base, pages in wanted:
            block = bytearray(self.blocks[base])
            for page, byte in pages.items():
                block[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = bytes([byte]) * PAGE_BYTES
            bitmap = sum(1 << page for page in pages).to_bytes(PAGES // 8, "little")
            replaced = b"".join(bytes([pages[page]]) * PAGE_BYTES for page in sorted(pages))
            plain = base.pack + base.slot.to_bytes(4, "little") + bitmap + replaced
            ids = [block_id(self.keys, bytes(block))]
            frames.append(HandFrame(ids=ids, plain=plain, kind=FrameKind.PATCH, encoding=Encoding.ZSTD))
            contents.append(bytes(block))
        pack = self.put(frames, contents)
        self.bases.update({NodeAddress(pack, slot): base for slot, (base, _) in enumerate(wanted)})
        return pack

    def disk(self, entries: Sequence[NodeAddress | None], *, tail_bytes: int) -> tuple[StoredDisk, bytes]:
        """Return a disk whose blocks lie there, and its content; its last block is short by ``tail_bytes``."""
        packs = sorted({place.pack for place in entries if place is not None})
        leaf = Leaf(
            tuple(packs),
            np.array([0 if each is None else 1 + packs.index(each.pack) for each in entries], dtype=np.uint16),
            np.array([0 if each is None else each.slot for each in entries], dtype=np.uint16),
        )
        size_bytes = len(entries) * BLOCK_BYTES - tail_bytes
        leaf_at = self._node(write_leaf(leaf)) if packs else None
        plain = write_root(Root(size_bytes, (leaf_at,)))
        root = self._node(plain)
        sizes = FourSizes(provisioned_bytes=size_bytes, read_bytes=0, new_bytes=0, stored_bytes=0)
        disk = StoredDisk(
            size_bytes=size_bytes,
            root=root,
            content_hash=node_id(self.keys, plain).hex(),
            sizes=sizes,
            packs=PackTable({}),
        )
        image = b"".join(bytes(BLOCK_BYTES) if each is None else self.blocks[each] for each in entries)
        return disk, image[:size_bytes]

    def _node(self, plain: bytes) -> NodeAddress:
        frame = HandFrame(ids=[node_id(self.keys, plain)], plain=plain, kind=FrameKind.MAP)
        place = NodeAddress(self.put([frame], []), 0)
        self.nodes[place] = frame
        return place

    def spoil(self, pack: PackId, start: int = 40, end: int = -2000) -> None:
        """Change bytes of a pack's frames; its trailer stays."""
        content = bytearray(self.world.memory.snapshot()[pack_key(pack)])
        content[start:end] = bytes(len(content[start:end]))
        self.world.memory.restore({**self.world.memory.snapshot(), pack_key(pack): bytes(content)})

    def punch_unused(self, entries: Sequence[NodeAddress | None]) -> None:
        """Make holes of all frames of which no block is needed, as garbage collection does."""
        needed = {place for place in entries if place is not None}
        needed |= {self.bases[place] for place in needed if place in self.bases}
        shelf = PackShelf(self.world.store, self.keys)
        for pack in {place.pack for place in self.blocks}:
            opened = shelf.open(pack)
            used = {opened.frame_extent(place.slot) for place in needed if place.pack == pack}
            for offset, length in {opened.frame_extent(slot) for slot in range(len(opened.trailer))} - used:
                self.spoil(pack, offset, offset + length)


def new_shelf(*, workers: int = 0) -> Shelf:
    world = World(workers=workers)
    return Shelf(world, key_ring(world.store))


CONTENTS = st.integers(1, 9)
GROUPS = st.lists(st.lists(CONTENTS, min_size=1, max_size=4), min_size=1, max_size=4)
PATCH_PAGES = st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 255), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(GROUPS, st.sampled_from(Encoding)), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0), PATCH_PAGES), max_size=5),
    st.data(),
    st.sampled_from([0, 2]),
)
def test_every_disk_reads_the_same_in_every_way(
    packs: list[tuple[list[list[int]], Encoding]],
    patches: list[tuple[int, dict[int, int]]],
    draw: st.DataObject,
    workers: int,
) -> None:
    shelf = new_shelf(workers=workers)
    for groups, encoding in packs:
        shelf.data(groups, encoding=encoding)
    whole = sorted(shelf.blocks)
    if patches:
        shelf.patches([(whole[number % len(whole)], pages) for number, pages in patches])
    places: list[NodeAddress | None] = [None, *sorted(shelf.blocks)]
    entries = draw.draw(st.lists(st.sampled_from(places), min_size=1, max_size=24))
    tail_bytes = 512 * draw.draw(st.integers(0, 127)) if entries[-1] is None else 0
    disk, image = shelf.disk(entries, tail_bytes=tail_bytes)
    shelf.punch_unused(entries)
    _move_some(shelf, whole, draw)
    shelf.world.reopen()
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    assert read_all(shelf.world.repository, disk, shelf.world.cancel) == image
    for _ in range(4):
        start = draw.draw(st.integers(0, len(image)))
        length = draw.draw(st.integers(0, len(image) - start))
        assert source.read(start, length) == image[start : start + length]
    with TemporaryDirectory() as folder, NoProgress().start("") as task:
        write_raw(Path(folder) / "disk.raw", source, task=task)
        assert (Path(folder) / "disk.raw").read_bytes() == image


def _move_some(shelf: Shelf, whole: list[NodeAddress], draw: st.DataObject) -> None:
    """Move some frames, up to three times, and spoil a pack from which all of them went."""
    old = draw.draw(st.sampled_from(sorted({place.pack for place in whole})))
    moving = [place for place in whole if place.pack == old]
    vault = Vault(shelf.world.store, shelf.keys, clock=shelf.world.clock, entropy=shelf.world.entropy)
    at = moving
    for _ in range(draw.draw(st.integers(0, 3))):
        frames = [
            HandFrame(ids=[block_id(shelf.keys, shelf.blocks[each])], plain=shelf.blocks[each]) for each in moving
        ]
        pack = shelf.put(frames, [shelf.blocks[each] for each in moving])
        write_moves(vault, {each: NodeAddress(pack, slot) for slot, each in enumerate(at)})
        shelf.spoil(at[0].pack)
        shelf.world.clock.advance(1)
        at = [NodeAddress(pack, slot) for slot in range(len(moving))]


def test_a_frame_of_four_blocks_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = new_shelf()
    pack = shelf.data([[1, 3, 5, 7], [9, 11, 13, 15]], encoding=Encoding.ZSTD)
    disk, image = shelf.disk([NodeAddress(pack, slot) for slot in range(8)], tail_bytes=0)
    opened = []

    original = OpenPack.open_blocks

    def counting(self: OpenPack, frame: FrameRead, sealed: memoryview) -> list[bytes | memoryview]:
        opened.append(frame.slot)
        return original(self, frame, sealed)

    monkeypatch.setattr(OpenPack, "open_blocks", counting)
    assert read_all(shelf.world.repository, disk, shelf.world.cancel) == image
    assert opened == [0, 4]
    opened.clear()
    assert shelf.world.repository.source(disk, cancel=shelf.world.cancel).read(0, len(image)) == image
    assert opened == [0, 4]


def test_blocks_of_many_packs_are_read_with_few_requests() -> None:
    shelf = new_shelf()
    packs = [shelf.data([[content] for content in range(1, 33, 2)], encoding=Encoding.ZSTD) for _ in range(4)]
    entries = [NodeAddress(packs[slot % 4], slot) for slot in range(16)] * 4
    disk, image = shelf.disk(entries, tail_bytes=0)
    shelf.world.reopen()
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    ranges = []
    original = shelf.world.memory.get_range

    def counting(key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        ranges.append(key)
        return original(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

    shelf.world.memory.get_range = counting  # type: ignore[method-assign]
    assert b"".join(bytes(run.data) for run in source.runs()) == image
    data_keys = [key for key in ranges if key in {pack_key(pack) for pack in packs}]
    assert len(data_keys) == 8  # a trailer and one range each


def test_a_disk_of_several_windows_is_read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.repository.reading.source.WINDOW_BLOCKS", 4)
    world = World(workers=3)
    image = image_of({number: 1 + number % 7 for number in range(100) if number % 5}, count=100, tail_bytes=512)
    point = world.back_up(image, run="r-1")
    assert world.restore(point) == image
    assert WINDOW_BLOCKS > 4


def test_what_moved_after_the_disk_was_opened_is_still_read() -> None:
    for workers in (0, 2):
        shelf = new_shelf(workers=workers)
        old = shelf.data([[1, 3], [5]], encoding=Encoding.RAW)
        disk, image = shelf.disk([NodeAddress(old, slot) for slot in (2, 0, 1)], tail_bytes=0)
        source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
        new = shelf.data([[1, 3, 5]], encoding=Encoding.ZSTD)
        vault = Vault(shelf.world.store, shelf.keys, clock=shelf.world.clock, entropy=shelf.world.entropy)
        write_moves(vault, {NodeAddress(old, slot): NodeAddress(new, slot) for slot in range(3)})
        shelf.world.store.delete(pack_key(old))
        assert source.read(0, len(image)) == image
        assert b"".join(bytes(run.data) for run in source.runs()) == image


def test_the_base_of_a_patch_that_is_lost_is_named() -> None:
    shelf = new_shelf()
    base = shelf.data([[2], [4]], encoding=Encoding.RAW)
    patches = shelf.patches([(NodeAddress(base, 1), {3: 7})])
    disk, _ = shelf.disk([NodeAddress(base, 0), NodeAddress(patches, 0)], tail_bytes=0)
    shelf.spoil(base, 40 + BLOCK_BYTES + 16, 40 + BLOCK_BYTES + 20)
    shelf.world.reopen()
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    with pytest.raises(PackDamaged) as caught:
        source.read(BLOCK_BYTES, 1)
    assert (caught.value.pack, caught.value.slot) == (base, 1)
    shelf.world.store.delete(pack_key(base))
    shelf.world.reopen()
    with pytest.raises(PackMissing):
        list(shelf.world.repository.source(disk, cancel=shelf.world.cancel).runs())


def test_threads_that_want_one_block_decode_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = new_shelf()
    pack = shelf.data([[2], [4]], encoding=Encoding.RAW)
    disk, image = shelf.disk([NodeAddress(pack, 0), NodeAddress(pack, 1)], tail_bytes=0)
    shelf.world.reopen()
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    source.read(BLOCK_BYTES, 1)
    asked, go = threading.Event(), threading.Event()
    original, calls = shelf.world.memory.get_range, []

    def slow(key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        calls.append(key)
        asked.set()
        assert go.wait(10)
        return original(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

    shelf.world.memory.get_range = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as threads:
        reads = [threads.submit(source.read, 4096 * number, 4096) for number in range(4)]
        assert asked.wait(10)
        go.set()
        found = [read.result() for read in reads]
    assert b"".join(found) == image[: 4 * 4096]
    assert len(calls) == 1


def test_a_reader_that_goes_forward_is_read_ahead_of() -> None:
    shelf = new_shelf(workers=2)
    pack = shelf.data([[1 + 2 * (number % 5)] for number in range(200)], encoding=Encoding.ZSTD)
    disk, image = shelf.disk([NodeAddress(pack, slot) for slot in range(200)], tail_bytes=0)
    shelf.world.reopen()
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    ranges = []
    original = shelf.world.memory.get_range

    def counting(key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        ranges.append(length_bytes)
        if length_bytes < 1000:
            threading.Event().wait(0.005)  # a store takes a while; a single block is not worth it
        return original(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

    shelf.world.memory.get_range = counting  # type: ignore[method-assign]
    read = b"".join(source.read(start, 16 * 1024) for start in range(0, len(image), 16 * 1024))
    assert read == image
    # 200 blocks one by one would be 200 requests; a request for what the reader overtook may come on top.
    assert len(ranges) < 100


def test_damage_ahead_of_a_reader_is_met_only_where_it_is() -> None:
    shelf = new_shelf(workers=2)
    pack = shelf.data([[2 + 2 * number] for number in range(60)], encoding=Encoding.RAW)
    disk, image = shelf.disk([NodeAddress(pack, slot) for slot in range(60)], tail_bytes=0)
    at = 40 + 50 * (BLOCK_BYTES + 16)
    shelf.spoil(pack, at + 100, at + 110)
    shelf.world.reopen()
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    for block in range(60):
        if block == 50:
            with pytest.raises(PackDamaged):
                source.read(block * BLOCK_BYTES, BLOCK_BYTES)
        else:
            wanted = image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            assert source.read(block * BLOCK_BYTES, BLOCK_BYTES) == wanted


def test_random_reads_of_many_threads_are_right() -> None:
    shelf = new_shelf(workers=2)
    pack = shelf.data([[number, number + 1] for number in range(1, 40, 2)], encoding=Encoding.ZSTD)
    disk, image = shelf.disk([NodeAddress(pack, slot) for slot in range(40)], tail_bytes=0)
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    draws = np.frombuffer(SeededEntropy(3).token_bytes(4 * 2000), dtype="<u4") % (len(image) - 4096)

    def check(offset: int) -> bool:
        return source.read(offset, 4096) == image[offset : offset + 4096]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(check, draws.tolist()))


def test_a_slow_store_is_asked_for_several_ranges_at_a_time() -> None:
    shelf = new_shelf(workers=2)
    packs = [shelf.data([[2 * number + 2]], encoding=Encoding.RAW) for number in range(6)]
    disk, image = shelf.disk([NodeAddress(pack, 0) for pack in packs], tail_bytes=0)
    shelf.world.reopen()
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    together = threading.Barrier(6)
    original = shelf.world.memory.get_range
    frame_bytes = BLOCK_BYTES + 16

    def meeting(key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        if length_bytes == frame_bytes:
            # Passes only when all six requests are under way at once.
            together.wait(10)
        return original(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

    shelf.world.memory.get_range = meeting  # type: ignore[method-assign]
    assert b"".join(bytes(run.data) for run in source.runs()) == image


def test_an_error_of_the_store_ends_a_restore_that_tolerates_damage() -> None:
    for workers in (0, 2):
        shelf = new_shelf(workers=workers)
        pack = shelf.data([[2], [4]], encoding=Encoding.RAW)
        disk, _ = shelf.disk([NodeAddress(pack, 0), NodeAddress(pack, 1)], tail_bytes=0)
        source = shelf.world.repository.source(disk, cancel=shelf.world.cancel, missing=(missing := MissingLog()))

        def fail(key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
            raise StoreUnreachable(store="memory", key=key, reason="cable")

        shelf.world.memory.get_range = fail  # type: ignore[method-assign]
        with pytest.raises(StoreUnreachable):
            list(source.runs())
        assert missing.extents() == ()


def test_a_slow_store_is_verified_several_packs_at_a_time() -> None:
    world = World(workers=1)
    for number in range(4):
        world.back_up(image_of({0: 2 * number + 2}, count=1), run=f"r-{number}", vm=VmUuid(f"vm-{number}"))
    world.reopen()
    together = threading.Barrier(4)
    original = world.memory.get_range

    def meeting(key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        if length_bytes > BLOCK_BYTES and offset_bytes == PACK_HEADER.size:
            # Passes only when all four packs are read at once.
            together.wait(10)
        return original(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

    world.memory.get_range = meeting  # type: ignore[method-assign]
    assert world.verify().is_sound
    assert not together.broken


def test_a_store_that_was_away_is_asked_again() -> None:
    shelf = new_shelf()
    pack = shelf.data([[2], [4]], encoding=Encoding.RAW)
    disk, image = shelf.disk([NodeAddress(pack, 0), NodeAddress(pack, 1)], tail_bytes=0)
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    original = shelf.world.memory.get_range

    def fail(key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        raise StoreUnreachable(store="memory", key=key, reason="cable")

    shelf.world.memory.get_range = fail  # type: ignore[method-assign]
    with pytest.raises(StoreUnreachable):
        source.read(0, len(image))
    shelf.world.memory.get_range = original  # type: ignore[method-assign]
    assert source.read(0, len(image)) == image


def test_a_leaf_that_moved_after_the_disk_was_opened_is_still_read() -> None:
    shelf = new_shelf()
    pack = shelf.data([[2], [4]], encoding=Encoding.RAW)
    disk, image = shelf.disk([NodeAddress(pack, 1), NodeAddress(pack, 0)], tail_bytes=0)
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel)
    (leaf,) = [each for each in shelf.nodes if each != disk.root]
    moved = shelf.put([shelf.nodes[leaf]], [])
    vault = Vault(shelf.world.store, shelf.keys, clock=shelf.world.clock, entropy=shelf.world.entropy)
    write_moves(vault, {leaf: NodeAddress(moved, 0)})
    shelf.world.store.delete(pack_key(leaf.pack))
    assert source.read(0, len(image)) == image


def test_a_slot_that_is_not_there_is_damage() -> None:
    shelf = new_shelf()
    pack = shelf.data([[2], [4]], encoding=Encoding.RAW)
    shelf.blocks[NodeAddress(pack, 2)] = block_of(6)
    disk, _ = shelf.disk([NodeAddress(pack, 0), NodeAddress(pack, 2)], tail_bytes=0)
    missing = MissingLog()
    source = shelf.world.repository.source(disk, cancel=shelf.world.cancel, missing=missing)
    (run,) = source.runs()
    assert bytes(run.data) == block_of(2)
    (extent,) = missing.extents()
    assert (extent.offset_bytes, extent.slot, extent.reason) == (BLOCK_BYTES, 2, "it has no such slot")
    with pytest.raises(PackDamaged, match="no such slot"):
        source.read(BLOCK_BYTES, 1)
