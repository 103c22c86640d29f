"""Dumps of every kind of object, from the repository that is frozen in ``version-1-full``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgpack
import pyrage

from holdfast.core import ManualClock, Secret, SeededEntropy
from holdfast.repository import IdentityUnlock
from holdfast.repository.config import read_config
from holdfast.repository.keys.epochs import hold_keys
from holdfast.repository.layout import Encoding, FrameKind, ObjectKind, PackId, parse_pack_key
from holdfast.repository.packs.frame import FrameCipher
from holdfast.repository.sealing import KeyRing
from holdfast.repository.vault import Vault
from holdfast.storage import MemoryStore
from tests.golden.repository.make_full import FOLDER, KEYS_FOLDER
from tests.support.hexdump import Field, annotated_dump
from tests.support.msgpack_fields import Layouts, msgpack_fields

__all__ = ["FULL_DUMPS", "full_store", "full_unlock"]

_PACK: list[Field] = [(16, "a pack")]
_LAYOUTS: Mapping[ObjectKind, Layouts] = {
    ObjectKind.POINT: {
        "packs": [(16, "a pack"), (4, "length of its object: {}"), (4, "references: {}"), (8, "live bytes: {}")]
    },
    ObjectKind.INDEX: {
        "packs": [
            (16, "a pack"),
            (4, "length of its object: {}"),
            (4, "slots: {}"),
            (8, "its trailer begins at {}"),
            (4, "length of its trailer, and epoch"),
        ],
        "samples": [(8, "how a block id begins"), (4, "row of packs: {}")],
    },
    ObjectKind.LEASE: {"packs": _PACK},
    ObjectKind.CONDEMNED: {"packs": _PACK},
    ObjectKind.MOVED: {
        "rows": [(16, "what lay in this pack"), (4, "in slot {}"), (16, "lies in this pack"), (4, "in slot {}")],
        "emptied": _PACK,
    },
    ObjectKind.QUARANTINE: {"packs": _PACK, "slots": [(16, "a pack"), (4, "slot {}")], "harmless": _PACK},
    ObjectKind.HOLES: {
        "rows": [(16, "a pack"), (4, "slots: {}"), (4, "bytes that came back: {}"), (4, "most needed by a disk: {}")],
        "bitmaps": [(1, "a bit for each slot, slot 0 the lowest: {:08b}")],
    },
    ObjectKind.PROOF: {
        "rows": [(16, "a pack"), (4, "length of its object: {}"), (8, "check began: {} seconds since 1970")]
    },
}


def full_store() -> MemoryStore:
    """Return a store that holds the frozen repository, without the keys beside it."""
    objects = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.is_file()}
    store = MemoryStore()
    store.restore({key: path.read_bytes() for key, path in objects.items() if not key.startswith(KEYS_FOLDER)})
    return store


def full_unlock(name: str = "machine") -> IdentityUnlock:
    """Return the key of one of its holders."""
    return IdentityUnlock(Secret((FOLDER / KEYS_FOLDER / f"{name}.txt").read_text()))


def _vault() -> Vault:
    store = full_store()
    config, _ = read_config(store)
    keys = KeyRing(hold_keys(store, full_unlock(), repository=config.id), repository=config.id)
    return Vault(store, keys, clock=ManualClock(), entropy=SeededEntropy(1))


def _payload(prefix: str, kind: ObjectKind) -> Callable[[], str]:
    """Return what dumps the opened payload of the last object below a prefix."""

    def dump() -> str:
        vault = _vault()
        key = max(info.key for info in vault.names(prefix))
        payload = vault.read(key, kind=kind)
        return annotated_dump(payload, msgpack_fields(payload, _LAYOUTS.get(kind, {})))

    return dump


def _holes() -> str:
    """Dump the last record of holes that were punched."""
    vault = _vault()
    payloads = [vault.read(info.key, kind=ObjectKind.HOLES) for info in vault.names("holes/")]
    punched = [each for each in payloads if (fields := msgpack.unpackb(each))["punched"] and any(fields["bitmaps"])]
    return annotated_dump(punched[-1], msgpack_fields(punched[-1], _LAYOUTS[ObjectKind.HOLES]))


def _index() -> str:
    vault = _vault()
    key = max(info.key for info in vault.names("index/"))
    content = vault.store.get(key)
    head_bytes = int.from_bytes(content[-4:], "little")
    return annotated_dump(
        content,
        [
            (4, "magic HFIX"),
            (2, "version 1"),
            (2, "0"),
            (16, "repository id"),
            (len(content) - 24 - head_bytes - 8, "sealed trailers"),
            (head_bytes, "the head, a sealed object"),
            (4, "magic HFIT"),
            (4, f"length of the head: {head_bytes}"),
        ],
    )


def _index_head() -> str:
    vault = _vault()
    key = max(info.key for info in vault.names("index/"))
    content = vault.store.get(key)
    head = content[-8 - int.from_bytes(content[-4:], "little") : -8]
    payload = vault.keys.open_object(head, kind=ObjectKind.INDEX, key=key)
    return annotated_dump(payload, msgpack_fields(payload, _LAYOUTS[ObjectKind.INDEX]))


def _pack_with(vault: Vault, *, kind: FrameKind, count: int) -> tuple[PackId, int]:
    """Return the first pack that has such a frame, and the frame's first slot."""
    for info in vault.names("packs/"):
        pack = parse_pack_key(info.key)
        assert pack is not None
        for slot, row in enumerate(vault.shelf.open(pack).trailer.rows):
            if row["kind"] == kind and row["count"] == count:
                return pack, slot
    raise AssertionError


def _trailer() -> str:
    vault = _vault()
    pack, _ = _pack_with(vault, kind=FrameKind.DATA, count=4)
    sealed = vault.shelf.read_trailer(pack)
    plain = FrameCipher(vault.keys, pack, epoch=sealed.epoch).open_trailer(sealed.sealed)
    rows, notes_bytes = vault.shelf.open(pack).trailer.rows, int.from_bytes(plain[4:8], "little")
    fields: list[Field] = [(4, f"{len(rows)} rows"), (4, f"notes of {notes_bytes} bytes")]
    for slot, row in enumerate(rows):
        role = f"{FrameKind(row['kind']).name.lower()}, {Encoding(row['encoding']).name.lower()}"
        fields += [
            (32, f"slot {slot}: id"),
            (4, f"length of its frame: {row['length']}" if row["length"] else "0: in the frame of an earlier slot"),
            (4, f"{role}, place {row['index']} of {row['count']}"),
        ]
    return annotated_dump(plain, [*fields, *msgpack_fields(plain[-notes_bytes:], {})])


def _patch() -> str:
    vault = _vault()
    pack, slot = _pack_with(vault, kind=FrameKind.PATCH, count=1)
    plain = vault.shelf.open(pack).fetch(slot, kind=FrameKind.PATCH)
    bits = int.from_bytes(plain[20:36], "little")
    pages = [page for page in range(128) if bits >> page & 1]
    assert len(plain) == 36 + 512 * len(pages)
    fields: list[Field] = [
        (16, "pack of the base"),
        (4, f"slot {int.from_bytes(plain[16:20], 'little')}"),
        (16, f"pages {', '.join(map(str, pages))}"),
        (16, f"page {pages[0]} begins"),
    ]
    return annotated_dump(plain[:52], fields)


def _holder_file() -> str:
    vault = _vault()
    key = next(info.key for info in vault.names("keys/machine."))
    unlock = full_unlock()
    text: bytes = pyrage.decrypt(vault.store.get(key), [pyrage.x25519.Identity.from_str(unlock.identity.reveal())])
    return text.decode()


FULL_DUMPS: Mapping[str, Callable[[], str]] = {
    "catalogue": _payload("catalogue/", ObjectKind.CATALOGUE),
    "condemned": _payload("condemned/", ObjectKind.CONDEMNED),
    "holder": _payload("holders/", ObjectKind.HOLDER),
    "holder-file": _holder_file,
    "holes": _holes,
    "index": _index,
    "index-head": _index_head,
    "lease": _payload("leases/", ObjectKind.LEASE),
    "lock-policy": _payload("immutability/", ObjectKind.IMMUTABILITY),
    "moved": _payload("moved/", ObjectKind.MOVED),
    "pack-trailer": _trailer,
    "patch": _patch,
    "point": _payload("points/", ObjectKind.POINT),
    "proofs": _payload("proofs/", ObjectKind.PROOF),
    "quarantine": _payload("quarantine/", ObjectKind.QUARANTINE),
}
"""What makes each dump, by its name in the pages."""
