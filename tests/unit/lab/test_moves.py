"""Going back when the VM itself is gone, and moving VMs and their disks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import first_disk, refusal, vm_named

NULL = "OpaqueRef:NULL"


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[RunningLab, Any]]:
    """A pool of two hosts that share their storage."""
    with tiny_lab(hosts=2) as lab, logged_in(lab) as session:
        yield lab, session.xenapi


def hosts_of(api: Any) -> tuple[str, str]:
    master = next(iter(api.pool.get_all_records().values()))["master"]
    return master, next(host for host in api.host.get_all() if host != master)


def test_going_back_brings_settings_back_and_leaves_what_belongs_to_people(api: Any) -> None:
    vm = vm_named(api, "alpha")
    made = api.VM.snapshot(vm, "before")
    extra = api.VM.get_order(vm)
    api.VM.set_name_label(vm, "renamed")
    api.VM.set_order(vm, "9")
    api.VM.add_tags(vm, "late")
    api.VM.add_to_blocked_operations(vm, "start", "no")
    api.VM.revert(made)
    record = api.VM.get_record(vm)
    assert (record["name_label"], record["order"], record["blocked_operations"]) == ("alpha", extra, {})
    assert "late" in record["tags"] and record["power_state"] == "Halted" and record["parent"] == made
    api.VM.remove_tags(vm, "late")
    api.VM.start(vm, False, False)
    api.VM.destroy(made)


def test_a_disk_that_the_snapshot_does_not_know_is_left_to_nobody(api: Any) -> None:
    vm = vm_named(api, "beta")
    disks = [b for b in api.VM.get_VBDs(vm) if api.VBD.get_type(b) == "Disk"]
    late = api.VBD.get_VDI(disks[-1])
    made = api.VM.snapshot(vm, "one disk", [late])
    assert len([b for b in api.VM.get_VBDs(made) if api.VBD.get_type(b) == "Disk"]) == len(disks) - 1
    api.VM.revert(made)
    assert api.VDI.get_VBDs(late) == []
    api.VM.destroy(made)


def test_a_snapshot_whose_vm_is_gone_brings_it_back_with_its_identity(api: Any) -> None:
    source = api.VM.snapshot(vm_named(api, "alpha"), "source")
    vm = api.VM.clone(source, "short-lived")
    api.VM.set_is_a_template(vm, False)
    uuid = api.VM.get_uuid(vm)
    made, later = api.VM.snapshot(vm, "kept"), api.VM.snapshot(vm, "later")
    api.VDI.destroy(first_disk(api, vm))
    api.VM.destroy(vm)
    assert api.VM.get_snapshot_of(made) == vm
    api.VM.revert(made)
    back = api.VM.get_by_uuid(uuid)
    assert back != vm and api.VM.get_name_label(back) == "short-lived"
    assert {api.VM.get_snapshot_of(each) for each in (made, later)} == {back}
    assert len(api.VM.get_VBDs(back)) == len(api.VM.get_VBDs(made))
    for each in (later, made, back, source):
        api.VM.destroy(each)


def test_a_vm_that_is_no_snapshot_cannot_be_gone_back_to(api: Any) -> None:
    vm = vm_named(api, "beta")
    assert refusal(lambda: api.VM.revert(vm)) == ["VM_REVERT_FAILED", vm, NULL]


def test_a_running_vm_moves_to_a_host_that_sees_its_disks(pair: tuple[RunningLab, Any]) -> None:
    lab, api = pair
    master, member = hosts_of(api)
    vm = vm_named(api, "alpha")
    api.VM.pool_migrate(vm, member, {"live": "true"})
    assert api.VM.get_resident_on(vm) == member and api.VM.get_power_state(vm) == "Running"
    assert refusal(lambda: api.VM.power_state_reset(vm)) == ["HOST_IS_LIVE", member]
    sr = api.VDI.get_SR(first_disk(api, vm))
    pbd = next(p for p in api.SR.get_PBDs(sr) if api.PBD.get_host(p) == master)
    lab.pool.db.set("PBD", pbd, "currently_attached", False)
    assert refusal(lambda: api.VM.pool_migrate(vm, master, {})) == ["VM_REQUIRES_SR", vm, sr]
    lab.pool.db.set("PBD", pbd, "currently_attached", True)
    api.VM.pool_migrate(vm, master, {})


@pytest.mark.slow(reason="moves a whole disk and hashes it twice")
def test_a_tracked_disk_does_not_move_and_another_becomes_another(pair: tuple[RunningLab, Any]) -> None:
    lab, api = pair
    _, member = hosts_of(api)
    vm = vm_named(api, "beta")
    fields = {**lab.pool.db.row("SR", api.VDI.get_SR(first_disk(api, vm))).fields}
    fields = {name: fields[name] for name in ("type", "content_type", "shared", "physical_size")}
    other = lab.pool.db.create("SR", {**fields, "name_label": "other"})
    for host in api.host.get_all():
        lab.pool.db.create("PBD", {"host": host, "SR": other, "currently_attached": True})
    disk = first_disk(api, vm)
    content = lab.pool.disks.sha256(api.VDI.get_uuid(disk))
    network = api.network.get_all()[0]
    told = api.host.migrate_receive(member, network, {})
    assert refusal(lambda: api.VM.migrate_send(vm, told, True, {disk: other}, {}, {})) == ["VDI_CBT_ENABLED", disk]
    api.VDI.disable_cbt(disk)
    api.VM.assert_can_migrate(vm, told, True, {disk: other}, {}, {})
    api.VM.migrate_send(vm, told, True, {disk: other}, {}, {})
    moved = first_disk(api, vm)
    assert moved != disk and api.VDI.get_SR(moved) == other and disk not in api.VDI.get_all()
    assert lab.pool.disks.sha256(api.VDI.get_uuid(moved)) == content
    assert api.VM.get_resident_on(vm) == member
    assert refusal(lambda: api.VM.migrate_send(vm, {}, True, {}, {}, {})) == ["INTERNAL_ERROR", "Not_found"]


def test_a_disk_that_a_vm_has_twice_is_copied_twice(api: Any) -> None:
    vm = vm_named(api, "alpha")
    made = api.VM.snapshot(vm, "source")
    source = api.VM.clone(made, "twice")
    api.VM.set_is_a_template(source, False)
    vbd = next(b for b in api.VM.get_VBDs(source) if api.VBD.get_type(b) == "Disk")
    record = {**api.VBD.get_record(vbd), "userdevice": "7"}
    api.VBD.create(record)
    copy = api.VM.clone(source, "copy")
    disks = [api.VBD.get_VDI(b) for b in api.VM.get_VBDs(copy) if api.VBD.get_type(b) == "Disk"]
    assert len(disks) == len(set(disks)) == 2
    for each in (copy, source, made):
        api.VM.destroy(each)
