"""Decoders of the repository's own formats: what lies in the store, and what the seals hold.

Behind a seal only holders of a key can put bytes; they are fed too, because a damaged machine is such a holder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from holdfast.core import ManualClock, SeededEntropy
from holdfast.model import RepositoryId
from holdfast.repository import (
    IdentityHolder,
    IdentityUnlock,
    OpenHolder,
    OpenUnlock,
    RecoveryKey,
    RestorePoint,
    new_recovery_key,
    open_repository,
)
from holdfast.repository.keys.epochs import _attempt, epoch_key, hold_keys
from holdfast.repository.keys.holders import _record_key, list_holders
from holdfast.repository.keys.keys import open_holder_file, seal_holder_file
from holdfast.repository.layout import Encoding, FrameKind, ObjectKind, PackId, pack_key
from holdfast.repository.packs.disk_map import read_leaf, read_root
from holdfast.repository.packs.frame import decode_frame
from holdfast.repository.packs.index import list_index_heads
from holdfast.repository.packs.pack import parse_patch
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.packs.trailer import parse_trailer
from holdfast.repository.points.catalogue import list_summaries
from holdfast.repository.points.point import read_points
from holdfast.repository.reading.block_reader import BlockReader
from holdfast.repository.records.condemned import list_condemned
from holdfast.repository.records.holes import read_holes
from holdfast.repository.records.immutability import read_lock_policy
from holdfast.repository.records.lease import list_leases
from holdfast.repository.records.moved import read_moves
from holdfast.repository.records.proofs import read_proofs
from holdfast.repository.records.quarantine import read_quarantine
from holdfast.repository.sealing import KeyRing
from holdfast.repository.vault import Vault
from tests.fuzz.target import Target, once
from tests.support.repositories import World, image_of, key_ring

__all__ = ["REPOSITORY_TARGETS"]

_PACK = PackId(bytes(range(16)))
_ADDRESS = NodeAddress(_PACK, 3)
_BLOCKS = 100
_SIZE_BYTES = _BLOCKS * 65536
_NAME = "20260101T000000Z-00000000"

Read = Callable[[Vault], object]


@dataclass(frozen=True, slots=True)
class _Ground:
    """A small repository that every input is put into."""

    world: World
    keys: KeyRing
    state: dict[str, bytes]
    point: RestorePoint

    def vault(self) -> Vault:
        """Return the engine's view of the repository as it is now."""
        return Vault(self.world.memory, self.keys, clock=ManualClock(), entropy=SeededEntropy(1))


@functools.cache
def _ground() -> _Ground:
    world = World()
    point = world.back_up(image_of({0: 1, 1: 2, 5: 3}, count=8), run="r-1")
    return _Ground(world, key_ring(world.memory), dict(world.memory.snapshot()), point)


def _raw(key: str, read: Read, samples: Callable[[], Iterator[bytes]]) -> Target:
    """Return a target whose input is a whole object as it lies in the store."""

    def decode(data: bytes) -> None:
        ground = _ground()
        ground.world.memory.restore({**ground.state, key: data})
        read(ground.vault())

    return Target(decode, once(samples))


def _sealed(key: str, kind: ObjectKind, read: Read) -> tuple[Target, Target]:
    """Return two targets: bytes behind the seal, and the sealed object itself."""

    def seal(data: bytes) -> bytes:
        ground = _ground()
        return ground.vault().keys.seal_object(data, kind=kind, key=key, entropy=SeededEntropy(2))

    def decode(data: bytes) -> None:
        ground = _ground()
        ground.world.memory.restore({**ground.state, key: seal(data)})
        read(ground.vault())

    def samples() -> Iterator[bytes]:
        ground = _ground()
        vault = ground.vault()
        prefix = key.partition("/")[0] + "/"
        for found, content in ground.state.items():
            if found.startswith(prefix) and kind is not ObjectKind.INDEX:
                yield vault.keys.open_object(content, kind=kind, key=found)
        yield b"\x81\xa4rows\xc4\x28" + bytes(40)
        yield b"\x83\xa7made_at\xb42026-01-01T00:00:00Z\xa5packs\xc4\x10" + bytes(16) + b"\xa4rows\x90"
        yield msgspec.msgpack.encode({"attempt": "0123abcd", "began_at": "2026-01-01T00:00:00Z"})
        yield msgspec.msgpack.encode(
            {"file": "keys/open.json", "recipient": "age1abc", "added_at": "2026-01-01T00:00:00Z"}
        )

    return Target(decode, once(samples)), _raw(key, read, lambda: iter([seal(each) for each in samples()]))


def _trailer(data: bytes) -> None:
    parse_trailer(data, pack=_PACK, frames_bytes=1 << 20)


def _frame(data: bytes) -> None:
    if len(data) >= 2:
        kind = (FrameKind.DATA, FrameKind.PATCH, FrameKind.MAP)[data[0] % 3]
        decode_frame(data[2:], pack=_PACK, slot=1, kind=kind, encoding=data[1] % 3, count=1 + data[0] % 4)


def _read_pack(vault: Vault) -> None:
    pack = next(iter(_ground().point.disks[0].stored.packs.packs))
    opened = vault.shelf.open(pack)
    reader = BlockReader(vault, moves=read_moves(vault))
    for slot in range(min(len(opened.trailer), 16)):
        if opened.trailer.rows["kind"][slot] != FrameKind.MAP:
            reader.read(NodeAddress(pack, slot))


def _holder_file(data: bytes) -> None:
    """Open the file of a key holder; one of an identity, because each try of a passphrase costs a second."""
    open_holder_file(data, IdentityUnlock(_recovery().secret), repository=RepositoryId("0" * 32))


def _holder_file_samples() -> Iterator[bytes]:
    holder = IdentityHolder("machine", _recovery().public)
    yield seal_holder_file(holder, (bytes(32),), repository=RepositoryId("0" * 32))
    yield seal_holder_file(holder, (bytes(32), bytes(32)), repository=RepositoryId("0" * 32))


def _holder_text(data: bytes) -> None:
    """Open what is behind the seal of a holder's file."""
    open_holder_file(data, OpenUnlock(), repository=RepositoryId("0" * 32))


def _holder_text_samples() -> Iterator[bytes]:
    yield seal_holder_file(OpenHolder(), (bytes(32), bytes(32)), repository=RepositoryId("0" * 32))


@functools.cache
def _recovery() -> RecoveryKey:
    return new_recovery_key()


def _open(vault: Vault) -> None:
    open_repository(vault.store, unlock=OpenUnlock(), clock=vault.clock, entropy=vault.entropy)


def _hold(vault: Vault) -> None:
    hold_keys(vault.store, OpenUnlock(), repository=RepositoryId(vault.keys.repository))


def _object(prefix: str) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([content for key, content in _ground().state.items() if key.startswith(prefix)])


def _trailer_samples() -> Iterator[bytes]:
    vault = _ground().vault()
    for pack in _ground().point.disks[0].stored.packs.packs:
        opened = vault.shelf.open(pack)
        rows = opened.trailer.rows.tobytes()
        yield len(opened.trailer).to_bytes(4, "little") + (9).to_bytes(4, "little") + rows + b"\x81\xa3run\xa3r-1"


def _frame_samples() -> Iterator[bytes]:
    yield bytes([0, Encoding.RAW]) + bytes(65536)
    yield bytes.fromhex("0201") + bytes.fromhex("28b52ffd2001090000") + b"x"


def _patch_samples() -> Iterator[bytes]:
    yield bytes(16) + (1).to_bytes(4, "little") + b"\x05\0\0\0" + bytes(8192)


def _leaf_samples() -> Iterator[bytes]:
    yield (
        bytes([0, 1]) + _BLOCKS.to_bytes(2, "little") + b"\1\0\0\0" + bytes(16) + b"\1\0" * _BLOCKS + bytes(2 * _BLOCKS)
    )


def _root_samples() -> Iterator[bytes]:
    head = bytes([1, 1, 0, 0]) + (1).to_bytes(4, "little") + _SIZE_BYTES.to_bytes(8, "little")
    yield head + (1).to_bytes(4, "little") + (4096).to_bytes(4, "little") + bytes(16) + b"\1\0\0\0" + bytes(2)


def _read_epoch(vault: Vault) -> None:
    _attempt(vault.store, vault.keys.held.keys, epoch=1, repository=RepositoryId(vault.keys.repository))


def _holder_record_key() -> str:
    """Return the name of the record of the only holder there is."""
    return _record_key(_ground().world.memory.get("keys/open.json"))


_SEALED: dict[str, tuple[str, ObjectKind, Read]] = {
    "point": (f"points/{'0' * 32}/{_NAME}", ObjectKind.POINT, read_points),
    "lease": (f"leases/{'0' * 32}/00000000", ObjectKind.LEASE, list_leases),
    "condemned": (f"condemned/{_NAME}", ObjectKind.CONDEMNED, list_condemned),
    "moved": (f"moved/{_NAME}", ObjectKind.MOVED, read_moves),
    "holes": (f"holes/{_NAME}", ObjectKind.HOLES, read_holes),
    "quarantine": (f"quarantine/{_NAME}", ObjectKind.QUARANTINE, read_quarantine),
    "catalogue": (f"catalogue/{_NAME}", ObjectKind.CATALOGUE, list_summaries),
    "proofs": (f"proofs/{_NAME}", ObjectKind.PROOF, read_proofs),
    "immutability": ("immutability/00000001", ObjectKind.IMMUTABILITY, read_lock_policy),
    "epoch": (epoch_key(1), ObjectKind.EPOCH, _read_epoch),
    "holder": (_holder_record_key(), ObjectKind.HOLDER, list_holders),
    "index-head": (f"index/{_NAME}", ObjectKind.INDEX, list_index_heads),
}

REPOSITORY_TARGETS = {
    "trailer": Target(_trailer, once(_trailer_samples)),
    "frame": Target(_frame, once(_frame_samples)),
    "patch": Target(lambda data: _drop(parse_patch(data, pack=_PACK, slot=1)), once(_patch_samples)),
    "leaf": Target(lambda data: _drop(read_leaf(data, address=_ADDRESS, blocks=_BLOCKS)), once(_leaf_samples)),
    "root": Target(lambda data: _drop(read_root(data, address=_ADDRESS)), once(_root_samples)),
    "config": _raw("holdfast.json", _open, _object("holdfast.json")),
    "holder-file": Target(_holder_file, once(_holder_file_samples)),
    "holder-text": Target(_holder_text, once(_holder_text_samples)),
    "open-key": _raw("keys/open.json", _hold, _object("keys/open.json")),
    "index": _raw(f"index/{_NAME}", list_index_heads, _object("index/")),
    **{f"{name}-behind-its-seal": _sealed(*each)[0] for name, each in _SEALED.items()},
    **{f"{name}-object": _sealed(*each)[1] for name, each in _SEALED.items()},
}


def _drop(_: object) -> None:
    """Take what a decoder made."""


def _add_pack() -> None:
    pack = next(iter(_ground().point.disks[0].stored.packs.packs))
    REPOSITORY_TARGETS["pack"] = _raw(pack_key(pack), _read_pack, _object(pack_key(pack)))


_add_pack()
