"""Stored disks and pack tables travel through durable steps and points without losing anything."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model import FourSizes, JsonObject
from holdfast.repository import NodeAddress, PackTable, PackUse, StoredDisk, StoredDiskUnreadable
from holdfast.repository.layout import PackId

uses = st.builds(
    PackUse,
    length_bytes=st.integers(0, 2**32 - 1),
    references=st.integers(1, 2**32 - 1),
    live_bytes=st.integers(0, 2**63),
)
tables = st.dictionaries(st.binary(min_size=16, max_size=16).map(PackId), uses, max_size=6).map(PackTable)


def disk_of(table: PackTable) -> StoredDisk:
    return StoredDisk(
        size_bytes=512,
        root=NodeAddress(PackId(bytes(16)), 7),
        content_hash="ab" * 32,
        sizes=FourSizes(provisioned_bytes=1, read_bytes=2, new_bytes=3, stored_bytes=4),
        packs=table,
    )


@given(table=tables)
def test_a_stored_disk_survives_json(table: PackTable) -> None:
    disk = disk_of(table)
    assert StoredDisk.from_json(json.loads(json.dumps(disk.to_json()))) == disk


@given(table=tables)
def test_a_table_is_read_as_it_was_written_in_the_order_of_ids(table: PackTable) -> None:
    found = PackTable.from_bytes(table.to_bytes())
    assert found == table
    assert hash(found) == hash(table)
    assert list(found.packs) == sorted(table.packs)
    assert all(pack in found and found.get(pack) == use for pack, use in table.items())


@pytest.mark.parametrize("stored", [b"x", bytes(33), bytes(64)])
def test_what_is_no_table_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match=r"buffer size|twice"):
        PackTable.from_bytes(stored)


SOUND = disk_of(PackTable({})).to_json()


@pytest.mark.parametrize(
    "changes",
    [{"root_pack": "zz"}, {"size_bytes": "many"}, {"packs": "!"}, {"packs": "AA=="}, {"sizes": {"odd": 1}}],
)
def test_a_record_that_cannot_be_read_says_so(changes: JsonObject) -> None:
    with pytest.raises(StoredDiskUnreadable):
        StoredDisk.from_json({**SOUND, **changes})
    with pytest.raises(StoredDiskUnreadable):
        StoredDisk.from_json({})


def test_a_record_of_a_later_version_with_more_fields_is_read() -> None:
    assert StoredDisk.from_json({**SOUND, "later": 1}) == disk_of(PackTable({}))
