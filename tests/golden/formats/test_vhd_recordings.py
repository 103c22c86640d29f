"""VHDs that a real pool and a real backup product made are read, and a pool's exports are made again byte by byte."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from holdfast.formats.vhd import (
    VHD_EPOCH,
    VhdFile,
    VhdInterrupted,
    VhdParent,
    VhdStreamReader,
    VhdStyle,
    open_chain,
    plan_vhd,
    read_vhd_head,
    stream_vhd,
)
from holdfast.model import Extent
from tests.support.golden import golden_path

MIB = 1 << 20


@pytest.mark.parametrize(
    ("name", "blocks", "is_difference", "creator"),
    [
        ("export-full.vhd", [1, 3], False, b"caml"),
        ("full.vhd", [1], False, b"caml"),
        ("diff.vhd", [], True, b"caml"),
        ("base.vhd", [1], False, b"tap\0"),
        ("child.vhd", [], True, b"tap\0"),
    ],
)
def test_a_recording_is_read(name: str, blocks: list[int], is_difference: bool, creator: bytes) -> None:
    with golden_path(name).open("rb") as file:
        reader = VhdStreamReader(file)
        found = list(reader.blocks())
    assert [block.index for block in found] == reader.allocated_blocks.tolist() == blocks
    assert all(block.is_whole for block in found)
    assert reader.is_difference == is_difference
    assert reader.head.footer.creator == creator
    assert (reader.size_bytes, reader.block_bytes) == (8 * MIB, 2 * MIB)


@pytest.mark.parametrize("name", ["export-full.vhd", "full.vhd", "diff.vhd"])
def test_the_length_of_an_export_is_known_from_its_head(name: str) -> None:
    path = golden_path(name)
    with path.open("rb") as file:
        assert read_vhd_head(file).length_bytes == path.stat().st_size


@pytest.mark.parametrize("name", ["export-full.vhd", "full.vhd"])
def test_a_pools_full_export_is_made_again_byte_by_byte(name: str) -> None:
    path = golden_path(name)
    with VhdFile(path) as recorded:
        head = recorded.head
        plan = plan_vhd(
            head.size_bytes,
            head.allocated_blocks,
            uuid=head.footer_uuid,
            created_at=VHD_EPOCH,
            style=VhdStyle.POOL,
        )
        assert b"".join(bytes(piece) for piece in stream_vhd(plan, recorded)) == path.read_bytes()


def test_a_pools_difference_is_made_again_byte_by_byte() -> None:
    path = golden_path("diff.vhd")
    with path.open("rb") as file:
        head = read_vhd_head(file)
    parent = VhdParent(
        uuid=head.header.parent_uuid, name=head.header.parent_name, created_at=head.header.parent_created_at
    )
    with open_chain([golden_path("child.vhd"), golden_path("base.vhd")]) as chain:
        plan = plan_vhd(
            head.size_bytes,
            head.allocated_blocks,
            uuid=head.footer_uuid,
            created_at=VHD_EPOCH,
            parent=parent,
            style=VhdStyle.POOL,
        )
        assert b"".join(bytes(piece) for piece in stream_vhd(plan, chain)) == path.read_bytes()


def test_a_pools_chain_is_the_disk_of_its_full_export() -> None:
    with (
        open_chain([golden_path("child.vhd"), golden_path("base.vhd")]) as chain,
        VhdFile(golden_path("full.vhd")) as full,
    ):
        assert chain.read(0, 8 * MIB) == full.read(0, 8 * MIB)
        assert list(chain.data_extents()) == [Extent(offset_bytes=2 * MIB, length_bytes=2 * MIB)]


def test_another_products_chain_is_read() -> None:
    folder = golden_path("xo-remote")
    newest, oldest = sorted(folder.rglob("*.vhd"), reverse=True)
    with open_chain([newest, oldest]) as chain, VhdFile(oldest) as full:
        assert chain.head.header.parent_name == oldest.name
        changed = chain.read(4 * MIB, 2 * MIB)
        assert chain.read(0, 4 * MIB) == full.read(0, 4 * MIB)
        assert chain.read(6 * MIB, 2 * MIB) == full.read(6 * MIB, 2 * MIB)
    assert hashlib.sha256(changed).hexdigest().startswith("a75f82667230")
    assert full.size_bytes == 8 * MIB


def recorded_error_pages() -> list[str]:
    """Return the bodies of recorded exports in which the pool wrote its error instead of a disk."""
    lines = Path(golden_path("replay/raw-export-a.jsonl")).read_text().splitlines()
    bodies = [json.loads(line).get("got", {}).get("body") for line in lines]
    return [body["text"] for body in bodies if body and body.get("text", "").startswith("HTTP/1.1 500")]


def test_a_recorded_failure_inside_a_body_is_told_with_the_pools_words() -> None:
    pages = recorded_error_pages()
    assert pages
    messages = []
    for page in pages:
        with pytest.raises(VhdInterrupted) as caught:
            VhdStreamReader(io.BytesIO(page.encode()))
        assert caught.value.status == "500 Internal Error"
        messages.append(caught.value.message)
    assert 'Failure("Cannot compute differences on non-VHD images")' in messages
