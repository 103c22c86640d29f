"""The dumps in the pages of the repository's format: ``./dev docs`` writes them from the frozen repository."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.repository.layout import FrameKind, parse_pack_key
from holdfast.repository.packs.pack import OpenPack, PackShelf
from holdfast.storage import MemoryStore
from tests.golden.repository.full_dumps import FULL_DUMPS
from tests.golden.repository.make import FOLDER
from tests.golden.repository.make_epochs import FOLDER as EPOCHS_FOLDER
from tests.support.hexdump import Field, annotated_dump
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
    "epoch": _epoch,
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
