"""Without a key nothing is readable: neither data nor names."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable

import pytest
from blake3 import blake3

from holdfast.core import BLOCK_BYTES, Secret, configure_log
from holdfast.model import Coverage, DataRun
from holdfast.repository import IdentityHolder, IdentityUnlock, PassphraseHolder, PassphraseUnlock, new_recovery_key
from tests.support.keyed_world import HOLDERS, LEAVER, MACHINE, OTHER, OTHER_UNLOCK, UNLOCK, KeyedWorld
from tests.support.repositories import WEB, World, block_of, disk_facts, image_of, point_facts, write_whole

NAMES = ["web-frontend", "system-volume", "nightly-payroll", "Main street", "name_label", "disk-1", "pool-1", "gold"]


def used_world() -> World:
    """Return a repository in which every kind of object lies."""
    world = World()
    image = image_of({0: 1, 1: 2}, count=3)
    point = world.back_up(image, run="r-secret-run")
    world.back_up(image_of({0: 3}, count=1), run="r-other")
    world.repository.delete_point(point.id)
    writer = world.begin("r-unfinished")
    write_whole(writer, image_of({0: 5}, count=1))
    writer.leave()
    world.repository.apply_gc(world.repository.plan_gc(), cancel=world.cancel)
    return world


def test_no_name_and_no_plain_block_shows_in_any_object_or_its_name() -> None:
    world = used_world()
    prefixes = {key.partition("/")[0] for key in world.keys("")}
    assert {"packs", "points", "index", "leases", "condemned"} <= prefixes
    known = [name.encode() for name in [*NAMES, "r-secret-run", "r-other", "r-unfinished", WEB]]
    known += [block_of(1)[:16], block_of(2)[:16], block_of(2)[4096:4112], block_of(3)[:16]]
    for key, content in world.memory.snapshot().items():
        for secret in known:
            assert secret not in content, f"{secret!r} is readable in {key}"
            assert secret not in key.encode()


def test_block_ids_do_not_show_what_a_block_is() -> None:
    world = used_world()
    plain_hash = blake3(block_of(1)).digest()
    for key, content in world.memory.snapshot().items():
        assert plain_hash not in content, f"an unkeyed hash lies in {key}"


def test_the_same_content_looks_different_in_every_repository() -> None:
    first, second = World(seed=1), World(seed=2)
    for world in (first, second):
        world.back_up(image_of({0: 1}, count=1), run="r-1")
    packs = [next(world.store.get(key) for key in world.keys("packs/")) for world in (first, second)]
    assert packs[0][40:] != packs[1][40:]
    assert not set(first.keys("points/")) & set(second.keys("points/"))


def test_a_vm_is_filed_under_the_same_hidden_name_each_time() -> None:
    world = World()
    for number in range(2):
        world.back_up(image_of({0: 1}, count=1), run=f"r-{number}")
    assert len({key.split("/")[1] for key in world.keys("points/")}) == 1


def test_facts_do_not_show_in_representations() -> None:
    facts = point_facts("r-1")
    assert "from_the_future" not in repr(facts)
    assert "vdi_record" not in repr(disk_facts(512))


def test_incompressible_blocks_are_sealed_too() -> None:
    world = World()
    block = block_of(4)
    with world.begin("r-1") as writer:
        disk = writer.open_disk(BLOCK_BYTES, coverage=Coverage.WHOLE, reference=None)
        disk.write(DataRun(0, block))
        disk.finish()
    (key,) = world.keys("packs/")
    content = world.store.get(key)
    assert len(content) > BLOCK_BYTES
    assert all(block[at : at + 8] not in content for at in range(0, BLOCK_BYTES, 4096))


def test_nothing_shows_in_a_repository_whose_data_key_was_rotated_either() -> None:
    world = KeyedWorld()
    world.back_up(image_of({0: 1, 1: 2}, count=3), run="r-secret-run")
    world.rotate(leave_out=["leaver"])
    world.back_up_as(OTHER_UNLOCK, image_of({0: 1, 1: 3}, count=3), run="r-other")
    known = [name.encode() for name in [*NAMES, "r-secret-run", "r-other", WEB, MACHINE.public, LEAVER.public]]
    known += [block_of(number)[:16] for number in (1, 2, 3)]
    keys = world.open(UNLOCK)._vault.keys.held.keys
    for key in keys:
        known += [key, base64.b64encode(key), key.hex().encode()]
    assert len(keys) == 2
    for name, content in world.memory.snapshot().items():
        for secret in known:
            assert secret not in content, f"{secret!r} is readable in {name}"
            assert secret not in name.encode()


@pytest.mark.slow(reason="a passphrase costs a second each time, by design")
def test_no_key_and_no_passphrase_is_told_in_logs_errors_or_values(capsys: pytest.CaptureFixture[str]) -> None:
    configure_log(verbosity=2, as_json=False)
    passphrase, mistyped = "correct horse battery staple", "wrong horse"
    world = KeyedWorld((*HOLDERS, PassphraseHolder("me", Secret(passphrase))))
    told: list[str] = []

    def tell(action: Callable[[], object]) -> None:
        try:
            told.append(repr(action()))
        except Exception:
            told.append(traceback.format_exc())

    wrong = new_recovery_key()
    tell(lambda: world.open(IdentityUnlock(wrong.secret)))
    tell(lambda: world.open(PassphraseUnlock(Secret(mistyped))))
    tell(lambda: world.open(UNLOCK).keys.holders())
    tell(lambda: world.rotate(PassphraseHolder("me", Secret(mistyped))))
    tell(lambda: world.rotate(leave_out=["me", "leaver"]))
    tell(lambda: world.open(UNLOCK).keys.add(PassphraseHolder("machine", Secret(passphrase))))
    tell(lambda: world.open(UNLOCK).keys.add(IdentityHolder("x", wrong.secret.reveal())))
    tell(lambda: world.back_up_as(OTHER_UNLOCK, image_of({0: 1}, count=1), run="r-1"))
    vault = world.open(UNLOCK)._vault
    told += [repr(vault.keys.held), repr(vault.keys), repr(UNLOCK), repr(PassphraseHolder("me", Secret(passphrase)))]
    streams = capsys.readouterr()
    text = "\n".join([*told, streams.out, streams.err])
    assert "WrongKey" in text
    secrets = [passphrase, mistyped]
    secrets += [each.secret.reveal() for each in (MACHINE, OTHER, LEAVER, wrong)]
    for key in vault.keys.held.keys:
        secrets += [key.hex(), base64.b64encode(key).decode(), repr(key)[2:-1]]
    for secret in secrets:
        assert secret not in text
