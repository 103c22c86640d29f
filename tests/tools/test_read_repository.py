"""A reader that shares nothing with the program restores what the program writes, and refuses what was changed."""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgpack
import pytest
from backports import zstd
from tools.read_repository import DATA, MAP, PATCH, POINT, Repository, Unreadable, entries, opener_of

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.model import Coverage, DataRun
from holdfast.repository.layout import Encoding, FrameKind, ObjectKind, PackId
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.records.moved import write_moves
from holdfast.repository.vault import Vault
from tests.golden.repository import make, make_epochs, make_full
from tests.support.hand_packs import HandFrame, block_id, data, put_pack
from tests.support.keyed_world import MACHINE, UNLOCK, KeyedWorld
from tests.support.repositories import World, block_of, disk_facts, image_of, key_ring, write_whole

TOOL = Path(__file__).parents[2] / "tools" / "read_repository.py"
FULL_KEYS = make_full.FOLDER / make_full.KEYS_FOLDER
HELPS_ONLY = tuple("canary catalogue condemned holders holes immutability index leases proofs quarantine".split())


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the tool as somebody would, from nowhere near the program."""
    command = [sys.executable, "-I", str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/")


def write_objects(objects: Mapping[str, bytes], folder: Path) -> Path:
    """Write a repository as the files of a folder."""
    for key, content in objects.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)
    return folder


def objects_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def opened(folder: Path, *, key: Path | None = None) -> Repository:
    """Open a repository with a key, or one that has no secret."""
    return Repository(folder, opener_of(argparse.Namespace(open=key is None, passphrase_file=None, key=key)))


def images(repository: Repository) -> dict[str, bytes]:
    """Return what the first disk of each point holds, by the run that made the point."""
    found = {}
    for name in repository.names("points"):
        point = repository.unseal(name, POINT)
        found[point["run"]] = image(repository, point["disks"][0])
    return found


def image(repository: Repository, disk: dict[str, object]) -> bytes:
    """Return a whole disk."""
    size = disk["stored_size"]
    assert isinstance(size, int)
    content = bytearray(size)
    for offset, block in repository.blocks(disk):
        content[offset : offset + len(block)] = block
    return bytes(content[:size])


def vault_of(world: World) -> Vault:
    """Return the repository of a world as the engine's parts have it."""
    return Vault(world.store, key_ring(world.store), clock=world.clock, entropy=world.entropy)


def test_it_has_at_most_300_lines_and_nothing_of_the_program() -> None:
    text = TOOL.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    names = [alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert len(names) > 10
    assert [name for name in names if name.startswith(("holdfast", ".", "tests"))] == []


def test_the_first_frozen_repository_is_listed_and_restored(tmp_path: Path) -> None:
    listed = run("points", make.FOLDER, "--open")
    assert listed.returncode == 0
    assert (
        "20260101T000100Z-3776ed61  taken 2026-01-01T00:01:00Z  VM 'web-frontend'\n    disk 0  459264 bytes"
        in listed.stdout
    )
    for point, content in (("20260101T000100Z", make.FIRST), ("20260101T000200Z", make.SECOND)):
        done = run("restore", make.FOLDER, point, "disk-1", tmp_path / point, "--open")
        assert (done.returncode, done.stderr) == (0, "")
        assert (tmp_path / point).read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20260101T000100Z", "20260101T000200Z"]


@pytest.mark.slow(reason="a passphrase costs a second for each of its files, by design")
def test_a_passphrase_restores(tmp_path: Path) -> None:
    point = next(name for name in objects_of(make_full.FOLDER) if name.startswith("points/")).rpartition("/")[2]
    done = run("restore", make_full.FOLDER, point, "0", tmp_path / "disk", "--passphrase-file", FULL_KEYS / "admin.txt")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "disk").read_bytes() in make_full.IMAGES.values()


@pytest.mark.parametrize("holder", ["machine", "server"])
def test_every_kind_of_frame_restores_for_every_kind_of_key(holder: str) -> None:
    assert images(opened(make_full.FOLDER, key=FULL_KEYS / f"{holder}.txt")) == make_full.IMAGES


def test_points_of_all_epochs_restore() -> None:
    key = make_epochs.FOLDER / make_epochs.MACHINE_FILE
    assert list(images(opened(make_epochs.FOLDER, key=key)).values()) == make_epochs.IMAGES


@pytest.mark.slow(reason="lives through rotations, collections and scrubs, with a passphrase each time")
def test_what_the_engine_writes_today_restores(tmp_path: Path) -> None:
    make_full.main(tmp_path / "fresh")
    assert (
        images(opened(tmp_path / "fresh", key=tmp_path / "fresh" / make_full.KEYS_FOLDER / "machine.txt"))
        == make_full.IMAGES
    )


def test_a_point_of_two_disks_of_which_one_has_leaves_without_blocks(tmp_path: Path) -> None:
    world = World()
    small = image_of({0: 2, 1: 3}, count=2, tail_bytes=1024)
    with world.begin("r-1") as writer:
        writing = writer.open_disk(769 * MIB, coverage=Coverage.WHOLE, reference=None)
        writing.write(DataRun(600 * MIB, block_of(4) + block_of(6)))
        writing.write(DataRun(768 * MIB, block_of(8)))
        large = writing.finish()
        disks = [(disk_facts(len(small)), write_whole(writer, small)), (disk_facts(769 * MIB), large)]
        point = writer.publish(world.facts("r-1"), disks)
    repository = opened(write_objects(world.memory.snapshot(), tmp_path))
    one, two = repository.unseal(point.key, POINT)["disks"]
    assert image(repository, one) == small
    places = [600 * MIB, 600 * MIB + BLOCK_BYTES, 768 * MIB]
    for other in ({"content_hash": bytes(32)}, {"stored_size": len(small) + 512}, {"root_slot": one["root_slot"] - 1}):
        with pytest.raises(Unreadable, match="the map of disk 0"):
            image(repository, {**one, **other})
    assert dict(repository.blocks(two)) == dict(zip(places, map(block_of, (4, 6, 8)), strict=True))


def test_of_two_moved_records_the_later_one_counts_and_moves_follow_each_other(tmp_path: Path) -> None:
    world = World()
    content = image_of({0: 2, 1: 4}, count=2)
    point = world.back_up(content, run="r-1")
    root = point.disks[0].stored.root
    nowhere, between = (NodeAddress(PackId(bytes(16)), slot) for slot in (7, 8))
    here = NodeAddress(root.pack, root.slot)
    vault = vault_of(world)
    write_moves(vault, {nowhere: between})
    world.clock.advance(60)
    write_moves(vault, {between: here, nowhere: here})
    repository = opened(write_objects(world.memory.snapshot(), tmp_path))
    disk = {**repository.unseal(point.key, POINT)["disks"][0], "root_pack": nowhere.pack, "root_slot": nowhere.slot}
    assert image(repository, disk) == content
    assert repository.content(between.pack, between.slot, MAP) == repository.content(root.pack, root.slot, MAP)


def test_without_what_only_helps_everything_restores(tmp_path: Path) -> None:
    needed = {key: content for key, content in objects_of(make_full.FOLDER).items() if not key.startswith(HELPS_ONLY)}
    assert len(needed) < len(objects_of(make_full.FOLDER))
    repository = opened(write_objects(needed, tmp_path), key=FULL_KEYS / "machine.txt")
    assert images(repository) == make_full.IMAGES


def test_files_of_an_attempt_that_did_not_win_are_told_from_those_that_did(tmp_path: Path) -> None:
    world = KeyedWorld()
    before = world.memory.snapshot()
    world.rotate()
    loser = {key: content for key, content in world.memory.snapshot().items() if key.startswith("keys/machine.")}
    world.memory.restore(before)
    world.rotate()
    world.repository = world.open(UNLOCK)
    content = image_of({0: 2}, count=1)
    world.back_up(content, run="r-1")
    key = tmp_path / "key"
    key.write_text(MACHINE.secret.reveal())
    repository = opened(write_objects({**world.memory.snapshot(), **loser}, tmp_path / "both"), key=key)
    assert len(repository.names("keys")) == len(world.keys("keys/")) + 1
    assert images(repository) == {"r-1": content}
    only_loser = {name: each for name, each in world.memory.snapshot().items() if not name.startswith("keys/")}
    repository = opened(write_objects({**only_loser, **loser}, tmp_path / "loser"), key=key)
    with pytest.raises(Unreadable, match="its seal is broken"):
        images(repository)


def step_of(content: bytes) -> int:
    return max(1, len(content) // 12)


@pytest.mark.parametrize("key", [key for key in objects_of(make.FOLDER) if not key.startswith(HELPS_ONLY)])
def test_a_flipped_bit_is_refused_or_harmless(key: str, tmp_path: Path) -> None:
    sound = objects_of(make.FOLDER)
    expected = images(opened(make.FOLDER))
    folder = write_objects(sound, tmp_path)
    refused = 0
    for place in range(0, len(sound[key]), step_of(sound[key])):
        spoiled = bytearray(sound[key])
        spoiled[place] ^= 0x10
        (folder / key).write_bytes(bytes(spoiled))
        try:
            assert images(opened(folder)) == expected
        except Unreadable as error:
            refused += 1
            # Which of these two was changed cannot be told: one is proven by the other.
            names = ("holdfast.json", "keys/") if key in ("holdfast.json", "keys/open.json") else (key,)
            assert any(name in str(error) for name in names), f"{key} is not named"
    assert refused >= 10


def test_a_flipped_byte_of_a_moved_frame_a_patch_or_a_record_is_refused(tmp_path: Path) -> None:
    sound = objects_of(make_full.FOLDER)
    folder = write_objects(sound, tmp_path)
    records = [key for key in sound if key.startswith(("moved/", "points/"))]
    assert len(records) > 5
    for key in records:
        spoiled = bytearray(sound[key])
        spoiled[-1] ^= 1
        (folder / key).write_bytes(bytes(spoiled))
        with pytest.raises(Unreadable, match=key):
            images(opened(folder, key=FULL_KEYS / "machine.txt"))
        (folder / key).write_bytes(sound[key])
    for key in (key for key in sound if key.startswith("packs/")):
        spoiled = bytearray(sound[key])
        spoiled[-30] ^= 1  # its trailer
        (folder / key).write_bytes(bytes(spoiled))
        try:
            assert images(opened(folder, key=FULL_KEYS / "machine.txt")) == make_full.IMAGES
        except Unreadable as error:
            assert key in str(error)
        (folder / key).write_bytes(sound[key])
    assert images(opened(folder, key=FULL_KEYS / "machine.txt")) == make_full.IMAGES


BLOCK = block_of(2)
WIDE = zstd.compress(bytes(BLOCK_BYTES) + b"x")


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (HandFrame(ids=[bytes(32)], plain=BLOCK), "its content does not have its id"),
        (HandFrame(ids=[bytes(32)], plain=WIDE, encoding=Encoding.ZSTD, is_packed=True), "longer than it"),
        (HandFrame(ids=[bytes(32)], plain=zstd.compress(BLOCK) * 2, encoding=Encoding.ZSTD, is_packed=True), "not one"),
        (HandFrame(ids=[bytes(32)], plain=BLOCK + b"x"), "longer than it may be"),
        (HandFrame(ids=[bytes(32)] * 5, plain=BLOCK * 5), "row 0 is wrong"),
        (HandFrame(ids=[bytes(32)] * 2, plain=BLOCK, kind=FrameKind.PATCH), "row 0 is wrong"),
        (HandFrame(ids=[bytes(32)], plain=bytes(36) + b"x", kind=FrameKind.PATCH), "its pages do not fit its length"),
        (HandFrame(ids=[bytes(32)], plain=BLOCK, kind=FrameKind.MAP), "a frame of kind 3 does not belong here"),
    ],
)
def test_what_is_sealed_well_and_contradicts_itself_is_refused(
    frame: HandFrame, complaint: str, tmp_path: Path
) -> None:
    world = World()
    pack = put_pack(world.store, key_ring(world.store), [frame])
    with pytest.raises(Unreadable, match=complaint) as caught:
        opened(write_objects(world.memory.snapshot(), tmp_path)).content(pack, 0, DATA, PATCH)
    assert pack.hex() in str(caught.value)


def test_a_patch_of_a_patch_and_a_slot_that_is_not_there_are_refused(tmp_path: Path) -> None:
    world = World()
    keys = key_ring(world.store)
    base = put_pack(world.store, keys, [data(keys, BLOCK)], seed=5)
    changed = b"\xff" * 512 + BLOCK[512:]
    first_page = (1).to_bytes(16, "little") + b"\xff" * 512
    on_block = HandFrame(ids=[block_id(keys, changed)], plain=base + bytes(4) + first_page, kind=FrameKind.PATCH)
    patch = put_pack(world.store, keys, [on_block], seed=6)
    on_patch = HandFrame(ids=[block_id(keys, changed)], plain=patch + bytes(4) + first_page, kind=FrameKind.PATCH)
    deep = put_pack(world.store, keys, [on_patch], seed=7)
    repository = opened(write_objects(world.memory.snapshot(), tmp_path))
    assert repository.content(patch, 0, DATA, PATCH) == changed
    with pytest.raises(Unreadable, match="a frame of kind 2 does not belong here"):
        repository.content(deep, 0, DATA, PATCH)
    with pytest.raises(Unreadable, match=f"slot 1 of packs/../{base.hex()}"):
        repository.content(base, 1, DATA)


def test_a_damaged_point_does_not_hide_the_others(tmp_path: Path) -> None:
    sound = objects_of(make.FOLDER)
    point = min(key for key in sound if key.startswith("points/"))
    listed = run("points", write_objects({**sound, point: sound[point][:-1]}, tmp_path), "--open")
    assert listed.returncode == 1
    assert f"{point.rpartition('/')[2]}  DOES NOT OPEN: {point}: its seal is broken" in listed.stdout
    assert "20260101T000200Z-14418549  taken 2026-01-01T00:02:00Z" in listed.stdout


def test_a_missing_pack_is_named_and_no_disk_is_left_that_looks_whole(tmp_path: Path) -> None:
    sound = objects_of(make.FOLDER)
    pack = max((key for key in sound if key.startswith("packs/")), key=lambda key: len(sound[key]))
    folder = write_objects({key: content for key, content in sound.items() if key != pack}, tmp_path / "cut")
    done = run("restore", folder, "20260101T000200Z", "0", tmp_path / "disk", "--open")
    assert done.returncode == 1
    assert pack in done.stderr
    assert not (tmp_path / "disk").exists()


def test_a_feature_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = write_objects({**objects_of(make.FOLDER), "features/read/time-travel": b""}, tmp_path)
    done = run("points", folder, "--open")
    assert (done.returncode, done.stdout) == (1, "")
    assert "time-travel" in done.stderr


def test_a_wrong_key_opens_nothing() -> None:
    done = run("points", make.FOLDER, "--key", FULL_KEYS / "machine.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no file opens" in done.stderr


def test_a_key_of_before_lists_what_it_opens_and_says_why_not_the_rest() -> None:
    listed = run("points", make_full.FOLDER, "--key", FULL_KEYS / "leaver.txt")
    assert listed.returncode == 1
    lines = [line for line in listed.stdout.splitlines() if not line.startswith(" ")]
    assert len(lines) == len(make_full.IMAGES)
    assert sum("taken" in line for line in lines) == 1
    assert sum("it is of epoch" in line for line in lines) == len(lines) - 1


def test_a_recovery_key_may_be_typed_in_groups_and_small_letters(tmp_path: Path) -> None:
    text = (FULL_KEYS / "machine.txt").read_text().lower()
    typed = tmp_path / "typed.txt"
    typed.write_text("# my key\n" + "\n".join(" ".join(text[at : at + 5]) for at in range(0, len(text), 5)) + "\n")
    assert len(opened(make_full.FOLDER, key=typed).keys) == 3


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"precious")
    done = run("restore", make.FOLDER, "20260101T000200Z", "0", tmp_path / "disk", "--open")
    assert done.returncode == 1
    assert "that file exists" in done.stderr
    assert (tmp_path / "disk").read_bytes() == b"precious"


def test_two_points_that_begin_alike_are_not_guessed(tmp_path: Path) -> None:
    done = run("restore", make.FOLDER, "2026", "0", tmp_path / "disk", "--open")
    assert done.returncode == 1
    assert "2 points are called so" in done.stderr


def test_a_node_that_contradicts_itself_is_refused() -> None:
    packs = bytes(16)
    assert list(entries(packs + b"\1\0\0\0" + b"\5\0\1\0", 0, 1, 2, "H")) == [(0, (packs, 5))]
    with pytest.raises(ValueError, match="entry 1 names a pack that is not there"):
        list(entries(packs + b"\1\0\2\0" + b"\5\0\1\0", 0, 1, 2, "H"))
    with pytest.raises(ValueError, match="its length"):
        list(entries(packs + b"\1\0\0\0" + b"\5\0\1\0x", 0, 1, 2, "H"))


def test_a_leaf_that_does_not_belong_there_is_refused(tmp_path: Path) -> None:
    world = World()
    short, long = (world.back_up(image_of({0: 2, 1: 4}, count=count), run=f"r-{count}") for count in (2, 3))
    places = []
    for point in (short, long):
        root = point.disks[0].stored.root
        node = vault_of(world).shelf.open(root.pack).fetch(root.slot)
        ((_, (pack, slot)),) = entries(node, 24, 1, 1, "I")
        places.append(NodeAddress(PackId(pack), slot))
    write_moves(vault_of(world), {places[0]: places[1]})
    repository = opened(write_objects(world.memory.snapshot(), tmp_path))
    with pytest.raises(Unreadable, match="leaf 0 is not what belongs there"):
        image(repository, repository.unseal(short.key, POINT)["disks"][0])


def test_objects_of_another_kind_or_version_are_refused(tmp_path: Path) -> None:
    world = World()
    vault = vault_of(world)
    name = "points/" + "0" * 32 + "/20260101T000000Z-00000000"
    vault.write(name, msgpack.packb({"version": 2, "disks": []}), kind=ObjectKind.POINT)
    repository = opened(write_objects(world.memory.snapshot(), tmp_path))
    with pytest.raises(Unreadable, match=f"{name}: its version is unknown here"):
        repository.unseal(name, POINT)
    with pytest.raises(Unreadable, match=f"{name}: it is another kind of object"):
        repository.unseal(name, 5)


@pytest.mark.parametrize(
    ("key", "old", "new", "complaint"),
    [
        ("holdfast.json", b'"version": 1', b'"version": 2', "holdfast.json: its format, version or sizes are unknown"),
        ("holdfast.json", b'"created_at": "2026', b'"created_at": "2025', "holdfast.json: its proof is wrong"),
        ("keys/open.json", b'"version":1', b'"version":3', "keys/: no file opens"),
        ("packs/42/420c13f8f5d40f6ce079d1b987376f07", b"HFPT", b"HFPX", "the pack does not end like one"),
    ],
)
def test_versions_and_marks_are_looked_at(key: str, old: bytes, new: bytes, complaint: str, tmp_path: Path) -> None:
    sound = objects_of(make.FOLDER)
    assert sound[key].count(old) == 1
    with pytest.raises(Unreadable, match=complaint):
        images(opened(write_objects({**sound, key: sound[key].replace(old, new)}, tmp_path)))


def test_a_disk_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = run("restore", make.FOLDER, "20260101T000200Z", "7", tmp_path / "disk", "--open")
    assert done.returncode == 1
    assert "0 disks of the point are called so" in done.stderr
