"""The dumps in the pages of the repository's format: ``./dev docs`` writes them from the frozen repository."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.core import BLOCK_BYTES, Secret
from holdfast.model import RepositoryId
from holdfast.repository import IdentityUnlock
from holdfast.repository.keys.epochs import hold_keys
from holdfast.repository.layout import FrameKind, ObjectKind, parse_pack_key
from holdfast.repository.packs.pack import OpenPack, PackShelf
from holdfast.repository.sealing import KeyRing
from holdfast.storage import MemoryStore
from tests.golden.repository.full_dumps import FULL_DUMPS
from tests.golden.repository.make import FOLDER
from tests.golden.repository.make_epochs import FOLDER as EPOCHS_FOLDER
from tests.golden.repository.make_epochs import MACHINE_FILE
from tests.support.hexdump import Field, annotated_dump
from tests.support.msgpack_fields import msgpack_fields
from tests.support.repositories import key_ring

__all__ = ["PAGES", "frozen_store", "page_text"]

_PROJECT = Path(__file__).parents[3]
_DUMP = re.compile(r"(<!-- (?:dump|file): (?P<name>[a-z.-]+) -->\n```(?:text|json)\n).*?(```)", re.DOTALL)


def frozen_store() -> MemoryStore:
    """Return a store that holds the frozen repository."""
    store = MemoryStore()
    store.restore(
        {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    )
    return store


def page_text(name: str) -> str:
    """Return what a page says when each of its dumps is made anew."""
    return _DUMP.sub(lambda found: f"{found[1]}{_DUMPS[found['name']]()}\n{found[3]}", _text_of(name))


def _text_of(name: str) -> str:
    return (_PROJECT / name).read_text(encoding="utf-8")


def _description() -> str:
    return frozen_store().get("holdfast.json").decode().rstrip()


def _pack() -> str:
    """Dump the smallest pack: an increment that stored a leaf and a root, and no block."""
    store = frozen_store()
    key = min((info for info in store.list("packs/")), key=lambda info: info.length_bytes).key
    content = store.get(key)
    trailer_bytes = int.from_bytes(content[-4:], "little")
    opened = _opened(key)
    lengths = [int(length) for length in opened.trailer.rows["length"]]
    assert 40 + sum(lengths) + trailer_bytes + 8 == len(content)
    fields: list[Field] = [
        (4, "magic HFPK"),
        (2, "version 1"),
        (2, "epoch 0"),
        (16, "repository id"),
        (16, "pack id"),
        *((length, f"slot {slot}: a map frame, sealed") for slot, length in enumerate(lengths)),
        (trailer_bytes, "the trailer, sealed"),
        (4, "magic HFPT"),
        (4, f"length of the sealed trailer: {trailer_bytes}"),
    ]
    return annotated_dump(content, fields)


def _epoch() -> str:
    content = (EPOCHS_FOLDER / "epochs" / "00001").read_bytes()
    fields: list[Field] = [
        (4, "magic HFSO"),
        (1, "version 1"),
        (1, "kind 10: an epoch"),
        (2, "epoch 1, whose key seals it"),
        (16, "nonce"),
        (len(content) - 24, "attempt and time, sealed"),
    ]
    return annotated_dump(content, fields)


def _epoch_opened() -> str:
    """Dump the plain text that the seal of that object covers."""
    sealed, name = (EPOCHS_FOLDER / "epochs" / "00001").read_bytes(), "epochs/00001"
    repository = RepositoryId(msgspec.json.decode((EPOCHS_FOLDER / "holdfast.json").read_bytes())["repository"])
    store = MemoryStore()
    paths = {path.relative_to(EPOCHS_FOLDER).as_posix(): path for path in EPOCHS_FOLDER.rglob("*") if path.is_file()}
    store.restore({key: path.read_bytes() for key, path in paths.items()})
    unlock = IdentityUnlock(Secret((EPOCHS_FOLDER / MACHINE_FILE).read_text()))
    keys = KeyRing(hold_keys(store, unlock, repository=repository), repository=repository)
    payload = keys.open_object(sealed, kind=ObjectKind.EPOCH, key=name)
    cipher = AESGCM(keys.derive("object", context=sealed[8:24], epoch=1))
    plain = cipher.decrypt(bytes(12), sealed[24:], sealed[:24] + keys.repository_bytes + name.encode())
    assert plain == bytes(4) + len(payload).to_bytes(4, "little") + payload
    fields: list[Field] = [(1, "encoding: raw"), (3, "0"), (4, f"length of the payload: {len(payload)}")]
    return annotated_dump(plain, [*fields, *msgpack_fields(payload, {})])


def _derived_keys() -> str:
    store = frozen_store()
    keys, key = key_ring(store), min(info.key for info in store.list("points/"))
    pack = min(info.key for info in store.list("packs/")).rpartition("/")[2]
    nonce = store.get(key)[8:24]
    lines = {
        "repository id": keys.repository_bytes,
        "repository key": keys.held.keys[0],
        **{purpose: keys.derive(purpose) for purpose in ("block-id", "node-id", "name", "config", "fingerprint")},
        f"pack, context {pack}": keys.derive("pack", context=bytes.fromhex(pack)),
        f"object, context {nonce.hex()}": keys.derive("object", context=nonce),
        "id of a block of 65,536 bytes ff": blake3(b"\xff" * BLOCK_BYTES, key=keys.block_id_key).digest(),
    }
    return "\n".join(f"{name:<48}  {value.hex()}" for name, value in lines.items())


def _leaf() -> str:
    plain = _nodes()[0]
    return annotated_dump(
        plain,
        [
            (1, "level 0"),
            (1, "version 1"),
            (2, "8 blocks"),
            (2, "1 pack"),
            (2, "0"),
            (16, "pack id"),
            (16, "blocks 0, 1, 2 and 5 lie in the first pack, the others are zero"),
            (16, "slots 0, 1, 0, 0, 0, 2, 0, 0 as differences"),
        ],
    )


def _root() -> str:
    plain = _nodes()[1]
    return annotated_dump(
        plain,
        [
            (1, "level 1"),
            (1, "version 1"),
            (2, "0"),
            (4, "1 leaf"),
            (8, "size: 7 blocks and 512 bytes"),
            (4, "1 pack"),
            (4, "4096 blocks per leaf"),
            (16, "pack id"),
            (4, "leaf 0 lies in the first pack"),
            (2, "in slot 3"),
        ],
    )


def _nodes() -> list[bytes]:
    """Return the decoded nodes of the first point's disk."""
    key = max((info for info in frozen_store().list("packs/")), key=lambda info: info.length_bytes).key
    opened = _opened(key)
    slots = [slot for slot, kind in enumerate(opened.trailer.rows["kind"]) if kind == FrameKind.MAP]
    return [opened.fetch(slot) for slot in slots]


def _opened(key: str) -> OpenPack:
    store = frozen_store()
    pack = parse_pack_key(key)
    assert pack is not None
    return PackShelf(store, key_ring(store)).open(pack)


_DUMPS: Mapping[str, Callable[[], str]] = {
    "holdfast.json": _description,
    "pack": _pack,
    "derived-keys": _derived_keys,
    "epoch": _epoch,
    "epoch-opened": _epoch_opened,
    "map-leaf": _leaf,
    "map-root": _root,
    **FULL_DUMPS,
}


def _maker(name: str) -> Callable[[], str]:
    return lambda: page_text(name)


_NAMES = (
    "catalogue",
    "disk-map",
    "epochs",
    "holes",
    "index-object",
    "keys",
    "leases",
    "locks",
    "moved",
    "pack",
    "point",
    "proofs",
    "quarantine",
    "repository",
)

PAGES: Mapping[str, Callable[[], str]] = {name: _maker(name) for name in (f"docs/formats/{each}.md" for each in _NAMES)}
"""Each page with dumps, by its path in the project, and what it should say."""
