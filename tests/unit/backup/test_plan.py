"""The plan says beforehand what a run would do."""

from __future__ import annotations

import pytest

from holdfast.backup import KeepInvalid, NothingToBackUp, plan_backup
from holdfast.core import GIB
from tests.support.flows import disk, vm, vm_disk
from tests.support.repositories import World


def test_each_vm_is_told_with_what_it_is_read_against() -> None:
    point = World().back_up(b"x" * 65536, run="r-1")
    web = vm("web", disks=(vm_disk("0", disk("d", size_bytes=4 * GIB)),))
    plan = plan_backup([web, vm("bare")], {web.uuid: point}, force_full=True, keep_points=3)
    told = plan.explain().splitlines()
    assert told[0] == f"web: 1 disk, 4.00 GiB provisioned; changes since {point.id}"
    assert told[1] == "bare: 0 disks, 0 B provisioned; first point: everything allocated is read"
    assert "a full read was asked for" in told[2]
    assert "the newest 3 points" in told[3]
    assert "warning: bare: the VM has no disks" in told[4]


def test_no_vm_is_an_error_and_so_is_keeping_none() -> None:
    with pytest.raises(NothingToBackUp):
        plan_backup([], {}, force_full=False, keep_points=None)
    with pytest.raises(KeepInvalid):
        plan_backup([vm("web")], {}, force_full=False, keep_points=0)
