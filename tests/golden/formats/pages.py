"""The hex dumps in the pages of the formats: ``python -m tests.golden.formats.pages`` writes them from the fixtures.

A dump stands in a fenced block after a line ``<!-- dump: name -->``; the rest of the page is written by people.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.hexdump import Field, annotated_dump

__all__ = ["FIXTURES", "PAGES", "main", "page_text"]

FIXTURES = Path(__file__).parent
_PROJECT = FIXTURES.parents[2]
_DUMP = re.compile(r"(<!-- dump: (?P<name>[a-z0-9-]+) -->\n```text\n).*?(```)", re.DOTALL)

_FOOTER: list[Field] = [
    (8, "cookie conectix"),
    (4, "features: the reserved bit"),
    (4, "version 1.0"),
    (8, "offset of the header"),
    (4, "seconds since 2000"),
    (4, "creator hldf"),
    (4, "creator's version"),
    (4, "creator's system Lnux"),
    (8, "original size"),
    (8, "current size: 8 MiB"),
    (2, "cylinders"),
    (1, "heads"),
    (1, "sectors per track"),
    (4, "type 4: differencing"),
    (4, "checksum"),
    (16, "uuid"),
    (1, "saved state"),
    (427, "reserved"),
]
_VHD: list[Field] = [
    *_FOOTER,
    (8, "cookie cxsparse"),
    (8, "no next structure"),
    (8, "offset of the table"),
    (4, "version 1.0"),
    (4, "table entries"),
    (4, "block size: 2 MiB"),
    (4, "checksum"),
    (16, "parent's uuid"),
    (4, "parent's time"),
    (4, "reserved"),
    (16, "parent's name base.vhd, UTF-16"),
    (496, "unused rest of the name"),
    (4, "locator 0: MacX"),
    (4, "its space: 512 bytes"),
    (4, "its length"),
    (4, "reserved"),
    (8, "its offset"),
    (168, "locators 1 to 7: unused"),
    (256, "reserved"),
    (17, "locator 0's data: file://./base.vhd"),
    (495, "rest of its sector"),
    (16, "table: no block is held"),
    (496, "table's padding"),
    *_FOOTER,
]
_CBT: list[Field] = [
    (1, "blocks 0 to 7: the first and the last two changed"),
    (1, "blocks 8 to 10: 8 and 10 changed; the other bits are behind the disk"),
]
_NBD: list[Field] = [
    (8, "server: NBDMAGIC"),
    (8, "IHAVEOPT"),
    (2, "flags: fixed newstyle"),
    (4, "client: flags: fixed newstyle"),
    (8, "IHAVEOPT"),
    (4, "option EXPORT_NAME"),
    (4, "length of the name"),
    (55, "name"),
    (8, "server: size of the export"),
    (2, "flags: valid, read only"),
    (124, "padding"),
    (4, "client: request"),
    (2, "flags"),
    (2, "command READ"),
    (8, "handle"),
    (8, "offset"),
    (4, "length"),
    (4, "server: simple reply"),
    (4, "no error"),
    (8, "handle"),
    (512, "data: one sector"),
    (4, "client: request"),
    (2, "flags"),
    (2, "command DISC"),
    (8, "handle"),
    (8, "offset"),
    (4, "length"),
]

_QCOW2: list[Field] = [
    (4, "magic"),
    (4, "version 3"),
    (8, "no backing file"),
    (4, "length of its name"),
    (4, "cluster bits: 64 KiB"),
    (8, "size: 1 MiB"),
    (4, "no encryption"),
    (4, "entries of the first-level table"),
    (8, "its offset"),
    (8, "offset of the table of reference counts"),
    (4, "its clusters"),
    (4, "number of snapshots"),
    (8, "their offset"),
    (8, "incompatible features"),
    (8, "compatible features"),
    (8, "autoclear features"),
    (4, "reference counts of 2^4 bits"),
    (4, "length of the header"),
    (1, "compression: zlib, and nothing is compressed"),
    (7, "padding"),
    (4, "extension: names of features"),
    (4, "its length"),
    (384, "eight names of 48 bytes"),
    (65032, "rest of the first cluster"),
    (8, "table of reference counts: one block of them"),
    (65528, "rest of its cluster"),
    (12, "reference counts: six clusters, each used once"),
    (65524, "rest of their cluster"),
    (8, "first-level table: one second-level table, not shared"),
    (65528, "rest of its cluster"),
    (24, "second-level table: clusters 0 to 2 are not held"),
    (8, "cluster 3 is, and not shared"),
    (65504, "rest of the table"),
    (65536, "data of cluster 3"),
]

_HEADER: list[Field] = [
    (8, "mode 0400"),
    (8, "owner 0"),
    (8, "group 0"),
    (12, "length, octal"),
    (12, "time, octal"),
    (8, "sum of the header's bytes"),
    (356, "no type, no magic: an old header"),
]
_XVA: list[Field] = [
    (7, "name ova.xml"),
    (93, "rest of the name"),
    *_HEADER,
    (17, "description"),
    (495, "padding"),
    (14, "name Ref:4/00000000"),
    (86, "rest of the name"),
    *_HEADER,
    (512, "block 0 of the disk"),
    (21, "name Ref:4/00000000.xxhash"),
    (79, "rest of the name"),
    *_HEADER,
    (16, "checksum of block 0, upper case"),
    (496, "padding"),
    (14, "name Ref:4/00000002: one block of zeros left out"),
    (86, "rest of the name"),
    *_HEADER,
    (512, "block 2 of the disk"),
    (21, "name Ref:4/00000002.xxhash"),
    (79, "rest of the name"),
    *_HEADER,
    (16, "checksum of block 2"),
    (496, "padding"),
    (1024, "end of the archive"),
]

_DUMPS: Mapping[str, tuple[str, list[Field]]] = {
    "vhd-difference": ("vhd-difference.vhd", _VHD),
    "cbt-bitmap": ("cbt-bitmap.bin", _CBT),
    "nbd-conversation": ("nbd-conversation.bin", _NBD),
    "qcow2-cluster": ("qcow2-cluster.qcow2", _QCOW2),
    "xva-short": ("xva-short.xva", _XVA),
}


def page_text(page: Path) -> str:
    """Return what a page says when each of its dumps is made anew."""

    def dump(found: re.Match[str]) -> str:
        fixture, fields = _DUMPS[found["name"]]
        return f"{found[1]}{annotated_dump((FIXTURES / fixture).read_bytes(), fields)}\n{found[3]}"

    return _DUMP.sub(dump, page.read_text(encoding="utf-8"))


def _maker(name: str) -> Callable[[], str]:
    return lambda: page_text(_PROJECT / name)


PAGES: Mapping[str, Callable[[], str]] = {
    f"docs/formats/{name}.md": _maker(f"docs/formats/{name}.md") for name in ("vhd", "cbt", "nbd", "qcow2", "xva")
}
"""Each page with dumps, by its path in the project, and what it should say."""


def main() -> None:
    """Write the pages whose dumps are stale."""
    for name, make in PAGES.items():
        text = make()
        if text != (_PROJECT / name).read_text(encoding="utf-8"):
            (_PROJECT / name).write_text(text, encoding="utf-8")
            print(f"written: {name}")


if __name__ == "__main__":
    main()
