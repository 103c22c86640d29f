"""The four sizes add up field by field, and big records stay out of what people read."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from holdfast.model import (
    ChangeSource,
    Consistency,
    DiskFacts,
    DiskUuid,
    FourSizes,
    JsonObject,
    PointFacts,
    PoolUuid,
    RunId,
    VmIdentity,
    VmUuid,
)

_SIZES = st.builds(
    FourSizes,
    provisioned_bytes=st.integers(0, 2**50),
    read_bytes=st.integers(0, 2**50),
    new_bytes=st.integers(0, 2**50),
    stored_bytes=st.integers(0, 2**50),
)


@given(_SIZES, _SIZES)
def test_sizes_of_two_disks_add_up_field_by_field(one: FourSizes, other: FourSizes) -> None:
    total = one + other
    assert total.provisioned_bytes == one.provisioned_bytes + other.provisioned_bytes
    assert total.read_bytes == one.read_bytes + other.read_bytes
    assert total.new_bytes == one.new_bytes + other.new_bytes
    assert total.stored_bytes == one.stored_bytes + other.stored_bytes


def test_whole_records_do_not_flood_a_log_line() -> None:
    secret_like: JsonObject = {"other_config": {"note": "kept whole, never shown"}}
    disk = DiskFacts(
        uuid=DiskUuid("d"), name="root", position="0", bootable=True, size_bytes=512, change_source=ChangeSource.FULL,
        change_reason="first backup", reference=None, vdi_record=dict(secret_like), vbd_record=dict(secret_like),
    )  # fmt: skip
    point = PointFacts(
        vm=VmIdentity(uuid=VmUuid("v"), name="web", pool=PoolUuid("p"), pool_name="lab"),
        taken_at=datetime(2026, 11, 20, tzinfo=UTC), run=RunId("r"), job="", consistency=Consistency.CRASH,
        previous=None, tags=(), vm_record=dict(secret_like), vm_metadata=b"kept whole, never shown",
    )  # fmt: skip
    assert "never shown" not in f"{disk} {point}"
