"""A disk restored to a file is the disk, or the list of what is missing in it lies beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.core import BLOCK_BYTES, Cancellation, ExitStatus, HoldfastError, NoProgress, SystemEntropy
from holdfast.formats.qcow2 import Qcow2Reader
from holdfast.formats.vhd import VhdFile
from holdfast.repository import RestorePoint
from holdfast.repository.layout import LEAF_BYTES, FrameKind, PackId, pack_key
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.vault import Vault
from holdfast.restore import RestoredFile, find_disk, restore_disk
from tests.sim.disks import SIZE_BYTES, Palette, write_content
from tests.support.repositories import World, disk_facts, image_of, key_ring, write_whole

BLOCKS = {0: 2, 1: 4, 2: 6, 5: 8, 6: 10, 9: 12}
IMAGE = image_of(BLOCKS, count=12, tail_bytes=512)


def missing_of(restored: RestoredFile) -> list[tuple[int, int, str, int | None, str]]:
    return [(each.offset_bytes, each.length_bytes, each.object, each.slot, each.reason) for each in restored.missing]


@dataclass
class Ground:
    """A repository with one point, and a folder."""

    world: World
    point: RestorePoint
    folder: Path
    image: bytes

    @property
    def packs(self) -> list[PackId]:
        return list(self.point.disks[0].stored.packs.packs)

    def opened(self, pack: PackId) -> OpenPack:
        world = self.world
        vault = Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)
        return vault.shelf.open(pack)

    def change(self, pack: PackId, change: Callable[[bytes], bytes]) -> None:
        objects = dict(self.world.memory.snapshot())
        objects[pack_key(pack)] = change(objects[pack_key(pack)])
        self.world.memory.restore(objects)
        self.world.reopen()

    def flip(self, pack: PackId, slot: int) -> None:
        """Flip a bit in the middle of a frame."""
        offset, length = self.opened(pack).frame_extent(slot)
        at = offset + length // 2
        self.change(pack, lambda content: content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])

    def restore(self, name: str = "disk.raw", *, partial: bool = False) -> RestoredFile:
        return restore_disk(
            self.world.repository,
            self.point,
            find_disk(self.point, "0"),
            self.folder / name,
            partial=partial,
            clock=self.world.clock,
            entropy=SystemEntropy(),
            progress=NoProgress(),
            cancel=self.world.cancel,
        )

    def with_zeros(self, restored: RestoredFile) -> bytes:
        """Return the image as it must be in the file."""
        image = bytearray(self.image)
        for extent in restored.missing:
            image[extent.offset_bytes : extent.end_bytes] = bytes(extent.length_bytes)
        return bytes(image)


def content_of(path: Path) -> bytes:
    """Return the disk in a file, whatever its format."""
    with path.open("rb") as file:
        match path.suffix.lower():
            case ".vhd":
                vhd = VhdFile(file)
                return vhd.read(0, vhd.size_bytes)
            case ".qcow2":
                image = bytearray(len(IMAGE))
                reader = Qcow2Reader(file)
                for cluster in reader.clusters():
                    image[cluster.offset_bytes : cluster.offset_bytes + BLOCK_BYTES] = reader.read(cluster)
                return bytes(image[: len(IMAGE)])
            case _:
                return file.read()


@pytest.fixture(params=[0, 2], ids=["alone", "threads"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    world = World(workers=request.param)
    return Ground(world, world.back_up(IMAGE, run="r-1"), tmp_path, IMAGE)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_raw_file_is_the_disk_with_its_holes(ground: Ground) -> None:
    restored = ground.restore()
    path = ground.folder / "disk.raw"
    assert path.read_bytes() == IMAGE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 <= len(BLOCKS) * BLOCK_BYTES + 8192
    assert (restored.missing, restored.missing_list, restored.missing_bytes) == ((), None, 0)
    assert names(ground.folder) == ["disk.raw"]


def test_the_name_chooses_the_format(ground: Ground) -> None:
    for name in ("disk.vhd", "disk.QCOW2", "disk.img"):
        ground.restore(name)
        assert content_of(ground.folder / name) == IMAGE
    with pytest.raises(HoldfastError) as caught:
        ground.restore("disk.tar")
    assert caught.value.code == "restore.format-unknown"


def test_a_file_that_is_there_is_never_replaced(ground: Ground) -> None:
    for name in ("disk.raw", "disk.raw.missing.json"):
        (ground.folder / name).write_text("mine")
        with pytest.raises(HoldfastError) as caught:
            ground.restore(partial=True)
        assert (caught.value.code, caught.value.exit_status) == ("restore.file-exists", ExitStatus.REFUSED)
        assert (ground.folder / name).read_text() == "mine"
        (ground.folder / name).unlink()
    (ground.folder / "disk.raw").symlink_to("nowhere")
    with pytest.raises(HoldfastError):
        ground.restore()
    assert names(ground.folder) == ["disk.raw"]


def test_damage_stops_a_restore_and_names_the_way_on(ground: Ground) -> None:
    (pack,) = ground.packs
    ground.flip(pack, 3)
    with pytest.raises(HoldfastError) as caught:
        ground.restore()
    assert (caught.value.code, caught.value.exit_status) == ("restore.disk-damaged", ExitStatus.DAMAGED)
    assert "--partial" in caught.value.next_step()
    assert pack_key(pack) in str(caught.value)
    assert names(ground.folder) == []


@pytest.mark.parametrize("name", ["disk.raw", "disk.vhd", "disk.qcow2"])
def test_a_partial_restore_lists_exactly_what_is_missing(ground: Ground, name: str) -> None:
    (pack,) = ground.packs
    trailer = ground.opened(pack).trailer
    slot = 3
    leader = slot - int(trailer.rows["index"][slot])
    ground.flip(pack, slot)
    restored = ground.restore(name, partial=True)
    lost = [number for number, row in enumerate(trailer.rows) if number - int(row["index"]) == leader]
    # Slots follow the blocks in this disk, so a slot's number is the block's number among those that hold data.
    wanted = [sorted(BLOCKS)[number] for number in lost]
    missing = [
        block
        for each in restored.missing
        for block in range(each.offset_bytes // BLOCK_BYTES, each.end_bytes // BLOCK_BYTES)
    ]
    assert missing == wanted
    assert {each[2:] for each in missing_of(restored)} == {(pack_key(pack), leader, "its seal does not match")}
    written: dict[str, Any] = json.loads((ground.folder / f"{name}.missing.json").read_text())
    assert written["missing_bytes"] == restored.missing_bytes == len(wanted) * BLOCK_BYTES
    assert [each["offset_bytes"] for each in written["missing"]] == [each.offset_bytes for each in restored.missing]
    assert (written["point"], written["file"]) == (ground.point.id, name)
    assert content_of(ground.folder / name) == ground.with_zeros(restored)


def test_a_missing_pack_is_one_extent_for_each_range(ground: Ground) -> None:
    image = image_of({**BLOCKS, 3: 14, 4: 16}, count=12, tail_bytes=512)
    reference = ground.point.disks[0].stored
    ground.point = ground.world.back_up_changes(image, [3, 4], run="r-2", reference=reference)
    ground.image = image
    ground.world.store.delete(pack_key(*set(reference.packs.packs)))
    ground.world.reopen()
    restored = ground.restore(partial=True)
    (old,) = set(reference.packs.packs)
    assert missing_of(restored) == [
        (0, 3 * BLOCK_BYTES, pack_key(old), None, "it is missing"),
        (5 * BLOCK_BYTES, 2 * BLOCK_BYTES, pack_key(old), None, "it is missing"),
        (9 * BLOCK_BYTES, BLOCK_BYTES, pack_key(old), None, "it is missing"),
    ]
    assert (ground.folder / "disk.raw").read_bytes() == ground.with_zeros(restored)


def test_of_a_pack_that_was_cut_short_the_beginning_is_saved(ground: Ground) -> None:
    # Its own trailer went too: the copy in the index opens what is left. The map lies in another pack.
    image = image_of({**BLOCKS, 11: 18}, count=12, tail_bytes=512)
    reference = ground.point.disks[0].stored
    (old,) = reference.packs.packs
    ground.point = ground.world.back_up_changes(image, [11], run="r-2", reference=reference)
    ground.image = image
    opened = ground.opened(old)
    offset, _ = opened.frame_extent(5)
    kept = [slot for slot in range(len(BLOCKS)) if sum(opened.frame_extent(slot)) <= offset]
    assert kept
    ground.change(old, lambda content: content[: offset + 5])
    restored = ground.restore(partial=True)
    assert {each.reason for each in restored.missing} == {"it is shorter than it was"}
    assert restored.missing_bytes == (len(BLOCKS) - len(kept)) * BLOCK_BYTES
    assert (ground.folder / "disk.raw").read_bytes() == ground.with_zeros(restored)


def test_without_the_root_nothing_can_be_restored(ground: Ground) -> None:
    root = ground.point.disks[0].stored.root
    ground.flip(root.pack, root.slot)
    for partial in (False, True):
        with pytest.raises(HoldfastError) as caught:
            ground.restore(partial=partial)
        assert (caught.value.code, caught.value.exit_status) == ("restore.disk-lost", ExitStatus.DAMAGED)
    assert names(ground.folder) == []


def test_a_damaged_leaf_is_the_whole_range_it_maps(tmp_path: Path) -> None:
    world = World()
    palette = Palette(key_ring(world.store))
    content = {0: 1, 5: 2, 4094: 3, 4097: 4, 5000: 5, 8192: 6}
    with world.begin("r-1") as writer:
        stored = write_content(writer, palette, content, changes=None, reference=None)
        point = writer.publish(world.facts("r-1"), [(disk_facts(SIZE_BYTES), stored)])
    ground = Ground(world, point, tmp_path, b"")
    (pack,) = ground.packs
    rows = ground.opened(pack).trailer.rows
    leaves = [
        slot for slot, kind in enumerate(rows["kind"].tolist()) if kind == FrameKind.MAP and slot != stored.root.slot
    ]
    assert len(leaves) == 3
    ground.flip(pack, leaves[1])
    ground.flip(pack, leaves[2])
    restored = ground.restore(partial=True)
    assert missing_of(restored) == [
        (LEAF_BYTES, LEAF_BYTES, pack_key(pack), leaves[1], "its seal does not match"),
        (2 * LEAF_BYTES, SIZE_BYTES - 2 * LEAF_BYTES, pack_key(pack), leaves[2], "its seal does not match"),
    ]
    with (tmp_path / "disk.raw").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == SIZE_BYTES
        for block in (0, 5, 4094):
            file.seek(block * BLOCK_BYTES)
            assert file.read(BLOCK_BYTES) == palette.blocks[content[block]]
        for block in (4097, 5000, 8192):
            file.seek(block * BLOCK_BYTES)
            assert not any(file.read(BLOCK_BYTES))
    with pytest.raises(HoldfastError) as caught:
        ground.restore("whole.raw")
    assert caught.value.code == "restore.disk-damaged"


def test_a_sound_disk_restores_whole_when_partial_is_allowed(ground: Ground) -> None:
    restored = ground.restore(partial=True)
    assert restored.missing == ()
    assert (ground.folder / "disk.raw").read_bytes() == IMAGE
    assert names(ground.folder) == ["disk.raw"]


def test_a_stopped_restore_leaves_no_file(ground: Ground) -> None:
    stopped = Cancellation()
    stopped.cancel()
    ground.world.cancel = stopped
    with pytest.raises(HoldfastError) as caught:
        ground.restore()
    assert (caught.value.code, caught.value.exit_status) == ("restore.stopped", ExitStatus.INTERRUPTED)
    assert names(ground.folder) == []


def test_a_disk_is_found_by_position_uuid_and_name(ground: Ground) -> None:
    for name in ("0", "disk-1", "system-volume"):
        assert find_disk(ground.point, name) is ground.point.disks[0]
    with pytest.raises(HoldfastError) as caught:
        find_disk(ground.point, "7")
    assert caught.value.code == "restore.disk-unknown"
    assert "0 'system-volume'" in caught.value.next_step()
    world = ground.world
    with world.begin("r-3") as writer:
        disks = [(disk_facts(len(IMAGE)), write_whole(writer, IMAGE)) for _ in range(2)]
        twins = writer.publish(world.facts("r-3"), disks)
    with pytest.raises(HoldfastError) as caught:
        find_disk(twins, "system-volume")
    assert caught.value.code == "restore.disk-ambiguous"
