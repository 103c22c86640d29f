"""Verification: maps against packs, tables against maps, and damage named with everything it hits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from holdfast.core import BLOCK_BYTES, Cancelled, NoProgress
from holdfast.model import FourSizes
from holdfast.repository import NodeAddress, PackTable, PackUse, StoredDisk
from holdfast.repository.layout import FrameKind, PackId, pack_key
from holdfast.repository.packs.disk_map import Leaf, Root, node_id, write_leaf, write_root
from holdfast.repository.points.point import publish_point
from holdfast.repository.vault import Vault
from tests.support.hand_packs import HandFrame, data, put_pack
from tests.support.repositories import World, block_of, disk_facts, image_of, key_ring


def test_a_sound_repository_is_said_to_be_sound() -> None:
    world = World(workers=2)
    point = world.back_up(image_of({0: 1, 1: 2}, count=3), run="r-1")
    world.back_up_changes(image_of({0: 1, 1: 3}, count=3), [1], run="r-2", reference=point.disks[0].stored)
    report = world.verify()
    assert report.is_sound
    assert report.damage == ()
    assert report.damaged_points == ()
    assert (report.points, report.disks, report.packs) == (2, 2, 2)
    assert report.block_bytes == 3 * BLOCK_BYTES
    assert report.frames == 6
    assert report.read_bytes > 0


def test_only_the_chosen_points_are_verified() -> None:
    world = World()
    sound = world.back_up(image_of({0: 1}, count=1), run="r-1")
    world.back_up(image_of({0: 2}, count=1), run="r-2")
    (bad,) = set(world.keys("packs/")) - {pack_key(pack) for pack, _ in sound.packs()}
    world.store.delete(bad)
    world.reopen()
    chosen = world.repository.verify([sound], progress=NoProgress(), cancel=world.cancel)
    assert chosen.is_sound
    assert chosen.points == 1
    assert not world.verify().is_sound


def test_a_point_that_is_deleted_meanwhile_is_no_damage() -> None:
    world = World()
    point = world.back_up(image_of({0: 1}, count=1), run="r-1")
    world.repository.delete_point(point.id)
    world.collect()
    report = world.repository.verify([point], progress=NoProgress(), cancel=world.cancel)
    assert report.is_sound
    assert report.points == 0


def test_a_cancelled_verification_stops() -> None:
    world = World()
    world.back_up(image_of({0: 1}, count=1), run="r-1")
    world.cancel.cancel()
    with pytest.raises(Cancelled):
        world.verify()


class Hand:
    """Publishes points whose maps are made by hand, with the keys but wrongly."""

    def __init__(self) -> None:
        self.world = World()
        self.vault = Vault(
            self.world.store, key_ring(self.world.store), clock=self.world.clock, entropy=self.world.entropy
        )
        self.blocks = put_pack(self.world.store, self.vault.keys, [data(self.vault.keys, block_of(1))], seed=60)

    def node(self, plain: bytes, *, seed: int, kind: FrameKind = FrameKind.MAP) -> NodeAddress:
        frame = HandFrame(ids=[node_id(self.vault.keys, plain)], plain=plain, kind=kind)
        return NodeAddress(put_pack(self.world.store, self.vault.keys, [frame], seed=seed), 0)

    def leaf(self, slot: int = 0, pack: PackId | None = None) -> NodeAddress:
        leaf = Leaf((pack or self.blocks,), np.array([1, 0], dtype=np.uint16), np.array([slot, 0], dtype=np.uint16))
        return self.node(write_leaf(leaf), seed=61)

    def disk(self, leaf: NodeAddress, *, size_bytes: int = 2 * BLOCK_BYTES) -> StoredDisk:
        plain = write_root(Root(2 * BLOCK_BYTES, (leaf,)))
        root = self.node(plain, seed=62)
        opened = {pack: self.vault.shelf.open(pack) for pack in (self.blocks, leaf.pack, root.pack)}
        return StoredDisk(
            size_bytes=size_bytes,
            root=root,
            content_hash=node_id(self.vault.keys, plain).hex(),
            sizes=FourSizes(provisioned_bytes=0, read_bytes=0, new_bytes=0, stored_bytes=0),
            packs=PackTable(
                {
                    pack: PackUse(
                        length_bytes=self.world.store.size(pack_key(pack)),
                        references=1,
                        live_bytes=each.frame_extent(0)[1],
                    )
                    for pack, each in opened.items()
                }
            ),
        )

    def reasons(self, disk: StoredDisk) -> list[str]:
        """Publish the disk; return what verification says."""
        facts = self.world.facts("r-hand")
        publish_point(self.vault, facts, [(disk_facts(disk.size_bytes), disk)], check_before=lambda: None)
        report = self.world.reopen().verify(None, progress=NoProgress(), cancel=self.world.cancel)
        assert all(damage.hits for damage in report.damage)
        return [damage.reason for damage in report.damage]


def test_a_map_made_by_hand_can_be_sound() -> None:
    hand = Hand()
    assert hand.reasons(hand.disk(hand.leaf())) == []


def test_a_table_that_does_not_agree_with_the_map_is_found() -> None:
    for change in ({"references": 2}, {"live_bytes": 1}):
        hand = Hand()
        disk = hand.disk(hand.leaf())
        uses = dict(disk.packs.items())
        uses[hand.blocks] = dataclasses.replace(uses[hand.blocks], **change)
        (reason,) = hand.reasons(dataclasses.replace(disk, packs=PackTable(uses)))
        assert "table of packs" in reason


def test_an_entry_that_leads_to_no_slot_or_to_a_node_is_found() -> None:
    hand = Hand()
    assert "no such slot" in hand.reasons(hand.disk(hand.leaf(slot=7)))[0]
    other = Hand()
    node = other.node(b"some node", seed=63)
    assert "is a map node" in other.reasons(other.disk(other.leaf(pack=node.pack)))[0]


def test_a_leaf_or_root_that_is_none_is_found() -> None:
    hand = Hand()
    assert "disk map" in hand.reasons(hand.disk(hand.node(b"not a leaf", seed=64)))[0]
    other = Hand()
    assert "not MAP" in other.reasons(other.disk(NodeAddress(other.blocks, 0)))[0]


def test_a_map_of_another_size_or_hash_is_found() -> None:
    hand = Hand()
    assert "another size" in hand.reasons(hand.disk(hand.leaf(), size_bytes=2 * BLOCK_BYTES - 512))[0]
    other = Hand()
    disk = dataclasses.replace(other.disk(other.leaf()), content_hash="00" * 32)
    assert "not the map that the point names" in other.reasons(disk)[0]


def test_a_block_that_is_not_what_its_trailer_names_is_found() -> None:
    hand = Hand()
    hand.blocks = put_pack(hand.world.store, hand.vault.keys, [HandFrame(ids=[bytes(32)], plain=block_of(1))], seed=65)
    assert "not the block that its trailer names" in hand.reasons(hand.disk(hand.leaf()))[0]


def test_a_node_that_is_not_what_its_trailer_names_is_found() -> None:
    hand = Hand()
    plain = write_leaf(Leaf((hand.blocks,), np.array([1, 0], dtype=np.uint16), np.array([0, 0], dtype=np.uint16)))
    frame = HandFrame(ids=[bytes(32)], plain=plain, kind=FrameKind.MAP)
    pack = put_pack(hand.world.store, hand.vault.keys, [frame], seed=66)
    assert any("not the" in reason for reason in hand.reasons(hand.disk(NodeAddress(pack, 0))))


def test_a_patch_counts_as_a_reference_to_its_base() -> None:
    hand = Hand()
    block = b"a" * 4096 + block_of(1)[4096:]
    plain = hand.blocks + (0).to_bytes(4, "little") + b"\xff" + bytes(15) + b"a" * 4096
    frame = HandFrame(ids=data(hand.vault.keys, block).ids, plain=plain, kind=FrameKind.PATCH)
    patched = put_pack(hand.world.store, hand.vault.keys, [frame], seed=67)
    disk = hand.disk(hand.leaf(pack=patched))
    uses = dict(disk.packs.items())
    assert uses[hand.blocks].references == 1, "the base"
    opened = hand.vault.shelf.open(patched)
    uses[patched] = PackUse(
        length_bytes=hand.world.store.size(pack_key(patched)), references=1, live_bytes=opened.frame_extent(0)[1]
    )
    assert hand.reasons(dataclasses.replace(disk, packs=PackTable(uses))) == []
    source = hand.world.repository.source(disk, cancel=hand.world.cancel)
    assert source.read(0, BLOCK_BYTES) == block
