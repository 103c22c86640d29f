"""A VM's provisioned size is what its disks promise together; records stay out of what people read."""

from __future__ import annotations

from holdfast.core import GIB
from holdfast.model import Disk, DiskUuid, PowerState, SrUuid, Vm, VmDisk, VmUuid


def _vm_with_disks(*sizes_bytes: int) -> Vm:
    disks = tuple(
        VmDisk(
            position=str(position), bootable=position == 0, read_only=False, vbd_record={"x": "not shown"},
            disk=Disk(
                uuid=DiskUuid(f"d{position}"), name="disk", sr=SrUuid("s"), size_bytes=size_bytes, used_bytes=0,
                kind="user", cbt_enabled=True, is_snapshot=False, snapshot_of=None, record={"x": "not shown"},
            ),
        )
        for position, size_bytes in enumerate(sizes_bytes)
    )  # fmt: skip
    return Vm(
        uuid=VmUuid("v"), name="db", description="", power_state=PowerState.RUNNING, tags=(), memory_bytes=GIB, vcpus=1,
        disks=disks, nics=(), record={"x": "not shown"},
    )  # fmt: skip


def test_provisioned_is_the_sum_of_the_disks() -> None:
    assert _vm_with_disks().provisioned_bytes == 0
    assert _vm_with_disks(2 * GIB, 3 * GIB).provisioned_bytes == 5 * GIB


def test_whole_records_do_not_flood_a_log_line() -> None:
    assert "not shown" not in repr(_vm_with_disks(GIB))
