"""Makes the repository that stands frozen in ``version-1-full``: every kind of object and of frame, all at once.

Run it only for a new version of the format, into a new folder, as ``make.py``. Files of key holders are age
files, which are random; so it makes other bytes each time. What its disks hold is told by ``IMAGES``.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from holdfast.core import BLOCK_BYTES, Cancellation, Cancelled, ManualClock, NoProgress, Secret, SeededEntropy
from holdfast.model import Extent, VmUuid
from holdfast.repository import (
    Compression,
    GcSettings,
    IdentityHolder,
    IdentityUnlock,
    NewHolder,
    PassphraseHolder,
    Repository,
    RestorePoint,
    ScrubBudget,
    create_repository,
    new_recovery_key,
    open_repository,
)
from holdfast.repository.layout import pack_key
from holdfast.storage import MemoryStore
from holdfast.storage.wrapper import StoreWrapper
from tests.support.repositories import TEST_SAFETY, World, write_whole

__all__ = ["FOLDER", "IMAGES", "KEYS_FOLDER", "PASSPHRASE", "main"]

FOLDER = Path(__file__).parent / "version-1-full"
KEYS_FOLDER = "keys-of-this-test"
PASSPHRASE = "a passphrase that is long enough"

_DB = VmUuid("22222222-aaaa-bbbb-cccc-000000000002")
_THOROUGH = GcSettings(is_thorough=True, poor_bytes_min=0, moved_live_part_max=0.9)


def _disk(contents: Sequence[int], *, tail_bytes: int = 0) -> bytes:
    """Return a disk; a block of content 0 is zero, another has 5 KiB of noise, and then what compresses well."""
    noise = {content: SeededEntropy(content).token_bytes(5120) for content in contents}
    text = {content: f"block {content} ".encode() * BLOCK_BYTES for content in contents}
    blocks = [(noise[each] + text[each])[:BLOCK_BYTES] if each else bytes(BLOCK_BYTES) for each in contents]
    return b"".join(blocks) + b"tail"[:tail_bytes].ljust(tail_bytes, b".")


def _poke(image: bytes, block: int, pages: Iterable[int]) -> bytes:
    """Return the disk after some pages of a block were written."""
    changed = bytearray(image)
    for page in pages:
        start = block * BLOCK_BYTES + page * 512
        changed[start : start + 512] = SeededEntropy(1000 + page).token_bytes(512)
    return bytes(changed)


_FIRST = _disk([1, 2, 3, 4, 5, 0, 6, 7, 0, 8], tail_bytes=512)
_SECOND = _disk([11, 12, 13, 14, 5, 0, 6, 7, 0, 8], tail_bytes=512)
_THIRD = _poke(_SECOND, 4, [0, 9, 127])
_DB_FIRST = _disk([21, 22, 23, 24, 25, 26, 27, 5])
_DB_SECOND = _disk([21, 22, 23, 24, 28, 29, 0, 5])
_DB_THIRD = _disk([21, 22, 23, 24, 28, 29, 30, 5])
_FOURTH = _poke(_disk([11, 12, 13, 14, 5, 0, 6, 7, 31, 8], tail_bytes=512), 4, [0, 9, 127])

IMAGES = {"r-3": _THIRD, "r-5": _DB_SECOND, "r-6": _DB_THIRD, "r-7": _FOURTH}
"""What the disk of each point that is there holds, by the run that made the point."""


class _SometimesPunches(StoreWrapper):
    """A store that can give back parts of an object until it cannot any more, as after a move to another place."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.punches = True

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        return super().try_punch(key, extents) if self.punches else None


class _FullWorld(World):
    """A repository of small frames with key holders of every kind."""

    def __init__(self, holders: Sequence[NewHolder], unlock: IdentityUnlock) -> None:
        self.clock, self.entropy, self.cancel, self.workers = ManualClock(), SeededEntropy(7), Cancellation(), 0
        self.memory = MemoryStore(clock=self.clock)
        self.punching = _SometimesPunches(self.memory)
        self.store = self.punching
        self.unlock = unlock
        create_repository(
            self.store,
            holders=holders,
            clock=self.clock,
            entropy=self.entropy,
            compression=Compression.SMALL,
            workers=0,
            safety=TEST_SAFETY,
        )
        self.reopen()

    def reopen(self) -> Repository:
        """Open the repository anew, as another process would."""
        self.repository = open_repository(
            self.store, unlock=self.unlock, clock=self.clock, entropy=self.entropy, workers=0, safety=TEST_SAFETY
        )
        return self.repository

    def change(self, image: bytes, blocks: Iterable[int], *, run: str, before: RestorePoint) -> RestorePoint:
        """Back up what a VM has changed since its point ``before``."""
        reference = before.disks[0].stored
        return self.back_up_changes(image, blocks, run=run, reference=reference, vm=before.facts.vm.uuid)

    def forget(self, *points: RestorePoint) -> None:
        """Delete points and give back their space, as far as the store can."""
        for point in points:
            self.repository.delete_point(point.id)
        for _ in range(2):
            self.clock.advance(2000)
            plan = self.repository.plan_gc(settings=_THOROUGH)
            self.repository.apply_gc(plan, settings=_THOROUGH, cancel=self.cancel)

    def interrupt(self, image: bytes, *, run: str) -> None:
        """Begin a backup that stores a disk and does not come to its point."""
        with suppress(Cancelled), self.begin(run) as writer:
            write_whole(writer, image)
            raise Cancelled

    def rotate(self, *goes_on: NewHolder, leave_out: Collection[str] = ()) -> None:
        """Begin a new key epoch."""
        self.repository.keys.rotate(self.unlock, goes_on=goes_on, leave_out=leave_out)
        self.reopen()

    def scrub(self) -> None:
        """Read every pack."""
        self.repository.care.scrub(ScrubBudget(), progress=NoProgress(), cancel=self.cancel)

    def spoil(self, point: RestorePoint) -> None:
        """Change a byte in the first frame of the pack that holds a point's root."""
        key = pack_key(point.disks[0].stored.root.pack)
        content = bytearray(self.memory.get(key))
        content[60] ^= 1
        self.memory.restore({**self.memory.snapshot(), key: bytes(content)})
        self.reopen()


def _fill(world: _FullWorld, passphrase: NewHolder) -> None:
    """Live through everything that leaves an object of its own."""
    leaver_file = world.memory.get("keys/leaver.age")
    first = world.back_up(_FIRST, run="r-1")
    second = world.change(_SECOND, range(4), run="r-2", before=first)
    third = world.change(_THIRD, [4], run="r-3", before=second)
    db_first = world.back_up(_DB_FIRST, run="r-4", vm=_DB)
    world.forget(first)
    world.rotate(passphrase, leave_out=["leaver"])
    world.store.put("keys/leaver.age", leaver_file)
    db = world.change(_DB_SECOND, [4, 5, 6], run="r-5", before=db_first)
    world.scrub()  # proofs
    world.punching.punches = False
    world.forget(second)  # a moved record that empties a pack
    world.punching.punches = True
    world.forget(db_first)  # a record of holes
    world.spoil(db)
    world.scrub()  # a quarantine note
    world.rotate(passphrase)
    world.store.put("keys/leaver.age", leaver_file)
    world.back_up(_DB_THIRD, run="r-6", vm=_DB)  # heals: a moved record that leads away from damage
    world.change(_FOURTH, [8], run="r-7", before=third)
    world.repository.protection.set_days(1, progress=NoProgress(), cancel=world.cancel)
    world.repository.protection.prove()  # a canary
    world.interrupt(_FIRST, run="r-8")
    world.forget()  # a condemned list, because the store holds what that run stored
    world.interrupt(_DB_FIRST, run="r-9")  # a lease


def main(folder: Path) -> None:
    """Write the objects as files, and beside them the keys that open them."""
    machine, leaver, ssh = new_recovery_key(), new_recovery_key(), Ed25519PrivateKey.generate()
    ssh_text = ssh.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    ssh_public = ssh.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    passphrase = PassphraseHolder("admin", Secret(PASSPHRASE))
    holders: list[NewHolder] = [
        passphrase,
        IdentityHolder("leaver", leaver.public),
        IdentityHolder("machine", machine.public),
        IdentityHolder("server", ssh_public),
    ]
    world = _FullWorld(holders, IdentityUnlock(machine.secret))
    _fill(world, passphrase)
    keys = {
        "admin.txt": PASSPHRASE.encode(),
        "leaver.txt": leaver.secret.reveal().encode(),
        "machine.txt": machine.secret.reveal().encode(),
        "server.txt": ssh_text,
    }
    objects = {**world.memory.snapshot(), **{f"{KEYS_FOLDER}/{name}": text for name, text in keys.items()}}
    for key, content in objects.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)


if __name__ == "__main__":
    main(Path(__file__).parent / sys.argv[1])
