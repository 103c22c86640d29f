"""VMs that start, stop, sleep and go on; and guests that say so, if their disks boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.core import KIB, MIB
from holdfast.lab import LabDelays, RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import first_disk, has_reported, refusal, vm_named, wait_until

NULL = "OpaqueRef:NULL"
LONG_S = 60


@pytest.fixture
def vm(lab: RunningLab, api: Any) -> Any:
    """Alpha, running, its guest known; it runs again afterwards."""
    alpha = vm_named(api, "alpha")
    if api.VM.get_power_state(alpha) == "Suspended":
        api.VM.hard_shutdown(alpha)
    if api.VM.get_power_state(alpha) == "Halted":
        api.VM.start(alpha, False, False)
    lab.control.advance(LONG_S)
    return alpha


def uuid_of(api: Any, vdi: str) -> str:
    return str(api.VDI.get_uuid(vdi))


def test_the_tools_report_some_seconds_after_a_start(lab: RunningLab, api: Any, vm: str) -> None:
    before = api.VM.get_guest_metrics(vm)
    api.VM.hard_reboot(vm)
    assert before not in api.VM_guest_metrics.get_all()
    lab.control.advance(LONG_S)
    guest = api.VM_guest_metrics.get_record(api.VM.get_guest_metrics(vm))
    assert guest["PV_drivers_detected"] is True and guest["live"] is True
    assert guest["os_version"]["distro"] == "lab"
    mac = api.VIF.get_MAC(api.VM.get_VIFs(vm)[0])
    assert guest["networks"]["0/ip"].split(".")[3] == str(int(mac[-2:], 16) or 1)


def test_what_a_guest_reported_stays_when_it_stops_and_goes_at_the_next_start(
    lab: RunningLab, api: Any, vm: str
) -> None:
    known = api.VM.get_guest_metrics(vm)
    api.VM.hard_shutdown(vm)
    assert api.VM.get_guest_metrics(vm) == known
    api.VM.start(vm, True, False)
    assert api.VM.get_guest_metrics(vm) == NULL
    lab.control.advance(LONG_S)
    assert api.VM.get_guest_metrics(vm) == NULL, "a paused guest does not boot"
    api.VM.unpause(vm)
    metrics = api.VM.get_guest_metrics(vm)
    assert not has_reported(api, vm), "it has metrics, which say nothing yet"
    lab.control.advance(LONG_S)
    assert has_reported(api, vm)
    assert api.VM.get_guest_metrics(vm) == metrics


@pytest.mark.slow(reason="the first start of a VM loads what reads its disks")
@pytest.mark.parametrize(("offset_bytes", "what"), [(0, "loader"), (MIB + 100 * KIB, "kernel")])
def test_a_guest_whose_disk_is_damaged_never_reports(
    lab: RunningLab, api: Any, vm: str, offset_bytes: int, what: str
) -> None:
    clone = api.VM.clone(api.VM.snapshot(vm, what), what)
    disks = lab.pool.disks
    disks.write(uuid_of(api, first_disk(api, clone)), offset_bytes, bytes(512))
    api.VM.set_is_a_template(clone, False)
    api.VM.start(clone, False, False)
    lab.control.advance(LONG_S)
    assert api.VM.get_power_state(clone) == "Running"
    assert not has_reported(api, clone)
    assert "suspend" not in api.VM.get_allowed_operations(clone)
    assert refusal(lambda: api.VM.suspend(clone)) == ["VM_LACKS_FEATURE", clone]
    assert refusal(lambda: api.VM.clean_shutdown(clone)) == ["VM_LACKS_FEATURE", clone]
    api.VM.hard_shutdown(clone)
    api.VM.destroy(clone)


def test_a_vm_can_be_told_to_have_no_tools(lab: RunningLab, api: Any, vm: str) -> None:
    api.VM.add_to_other_config(vm, "lab:no-tools", "")
    api.VM.hard_reboot(vm)
    lab.control.advance(LONG_S)
    assert not has_reported(api, vm)
    api.VM.remove_from_other_config(vm, "lab:no-tools")
    api.VM.hard_reboot(vm)


def test_a_running_vm_has_a_host_consoles_and_figures(api: Any, vm: str) -> None:
    record, metrics = api.VM.get_record(vm), api.VM_metrics.get_record(api.VM.get_metrics(vm))
    assert record["resident_on"] in api.host.get_all() and int(record["domid"]) > 0
    assert {api.console.get_protocol(each) for each in record["consoles"]} == {"rfb", "vt100"}
    assert metrics["hvm"] is True and metrics["current_domain_type"] == "hvm"
    assert metrics["memory_actual"] == record["memory_dynamic_max"] and metrics["VCPUs_number"] == "2"
    api.VM.hard_shutdown(vm)
    record = api.VM.get_record(vm)
    assert (record["resident_on"], record["domid"], record["consoles"]) == (NULL, "-1", [])
    assert api.VBD.get_device(next(b for b in record["VBDs"] if api.VBD.get_type(b) == "Disk")) == "xvda"


def test_a_suspended_vm_goes_on_from_its_memory(lab: RunningLab, api: Any, vm: str) -> None:
    api.VM.suspend(vm)
    image = api.VM.get_suspend_VDI(vm)
    assert (api.VM.get_power_state(vm), api.VDI.get_type(image)) == ("Suspended", "suspend")
    assert int(api.VDI.get_virtual_size(image)) > int(api.VM.get_memory_static_max(vm))
    assert lab.pool.disks.used_bytes(uuid_of(api, image)) > MIB
    disks = [b for b in api.VM.get_VBDs(vm) if api.VBD.get_type(b) == "Disk"]
    assert all(api.VBD.get_currently_attached(b) for b in disks)
    api.VM.resume(vm, False, False)
    assert (api.VM.get_power_state(vm), api.VM.get_suspend_VDI(vm)) == ("Running", NULL)
    assert image not in api.VDI.get_all()


def test_a_vm_whose_memory_image_is_damaged_does_not_go_on(lab: RunningLab, api: Any, vm: str) -> None:
    api.VM.suspend(vm)
    image = uuid_of(api, api.VM.get_suspend_VDI(vm))
    byte = lab.pool.disks.read(image, 64 * KIB, 1)[0]
    lab.pool.disks.write(image, 64 * KIB, bytes([byte ^ 1]))
    assert refusal(lambda: api.VM.resume(vm, False, False))[0] == "INTERNAL_ERROR"
    assert api.VM.get_power_state(vm) == "Suspended"
    api.VM.hard_shutdown(vm)
    assert api.VM.get_power_state(vm) == "Halted" and api.VM.get_suspend_VDI(vm) == NULL


def test_a_vm_goes_on_only_where_its_processor_is(lab: RunningLab, api: Any, vm: str) -> None:
    api.VM.suspend(vm)
    host = api.host.get_all()[0]
    lab.pool.db.set("VM", vm, "last_boot_CPU_flags", {"vendor": "AuthenticAMD", "features": ""})
    assert refusal(lambda: api.VM.resume(vm, False, False)) == ["NO_HOSTS_AVAILABLE"]
    refused = refusal(lambda: api.VM.resume_on(vm, host, False, False))
    assert refused[:3] == ["VM_INCOMPATIBLE_WITH_THIS_HOST", vm, host] and "vendor" in refused[3]
    lab.pool.db.set("VM", vm, "last_boot_CPU_flags", {"vendor": "GenuineIntel", "features": "ffffffff"})
    assert "features" in refusal(lambda: api.VM.resume_on(vm, host, False, False))[3]
    api.VM.resume_on(vm, host, False, True)
    assert api.VM.get_power_state(vm) == "Running"


@pytest.mark.slow(reason="hashes whole memory images")
def test_another_memory_image_must_be_identical(lab: RunningLab, api: Any, vm: str) -> None:
    memory = api.VM.get_memory_static_max(vm)
    api.VM.hard_shutdown(vm)
    api.VM.set_memory_limits(vm, "0", str(MIB), str(MIB), str(MIB))
    api.VM.start(vm, False, False)
    lab.control.advance(LONG_S)
    api.VM.suspend(vm)
    image = api.VM.get_suspend_VDI(vm)
    same, other = api.VDI.clone(image), api.VDI.clone(image)
    lab.pool.disks.write(uuid_of(api, other), 8 * MIB, b"x" * 512)
    assert refusal(lambda: api.VM.set_suspend_VDI(vm, other))[0] == "SUSPEND_VDI_REPLACEMENT_IS_NOT_IDENTICAL"
    api.VM.set_suspend_VDI(vm, same)
    api.VM.resume(vm, False, False)
    assert same not in api.VDI.get_all()
    for vdi in (image, other):
        api.VDI.destroy(vdi)
    api.VM.hard_shutdown(vm)
    api.VM.set_memory(vm, memory)


def test_a_checkpoint_keeps_memory_that_can_be_gone_back_to(lab: RunningLab, api: Any, vm: str) -> None:
    made = api.VM.checkpoint(vm, "with memory")
    assert api.VM.get_snapshot_info(made)["power-state-at-snapshot"] == "Running"
    assert api.VM.get_power_state(vm) == "Running"
    kept = api.VM.get_suspend_VDI(made)
    assert api.VDI.get_is_a_snapshot(kept) is True
    api.VM.revert(made)
    assert api.VM.get_power_state(vm) == "Suspended"
    assert api.VM.get_suspend_VDI(vm) not in (NULL, kept)
    api.VM.resume(vm, False, False)
    assert api.VM.get_power_state(vm) == "Running"
    api.VM.destroy(made)


def test_what_a_pool_says_of_a_vm_that_someone_starts_and_stops(api: Any, vm: str) -> None:
    for message in api.message.get_all():
        api.message.destroy(message)
    api.VM.pause(vm)
    api.VM.unpause(vm)
    api.VM.clean_reboot(vm)
    told = {record["name"]: record for record in api.message.get_all_records().values()}
    assert set(told) == {"VM_PAUSED", "VM_UNPAUSED", "VM_REBOOTED"}
    assert told["VM_PAUSED"]["body"] == f"VM 'alpha' (uuid: {api.VM.get_uuid(vm)}) paused"


def test_a_vm_that_runs_is_not_declared_halted(api: Any, vm: str) -> None:
    assert refusal(lambda: api.VM.power_state_reset(vm)) == ["DOMAIN_EXISTS", vm]
    control = next(each for each in api.VM.get_all() if api.VM.get_is_control_domain(each))
    assert refusal(lambda: api.VM.power_state_reset(control)) == ["CANNOT_RESET_CONTROL_DOMAIN", control]


def test_a_host_that_cannot_run_a_vm_says_why(api: Any, vm: str) -> None:
    api.VM.hard_shutdown(vm)
    host = api.host.get_all()[0]
    api.VM.set_VCPUs_max(vm, "64")
    assert refusal(lambda: api.VM.assert_can_boot_here(vm, host)) == ["HOST_NOT_ENOUGH_PCPUS", "64", "8"]
    assert api.VM.get_possible_hosts(vm) == []
    assert refusal(lambda: api.VM.start(vm, False, False)) == ["NO_HOSTS_AVAILABLE"]
    api.VM.set_VCPUs_max(vm, "2")
    memory = api.VM.get_memory_static_max(vm)
    api.VM.set_memory(vm, str(1 << 40))
    assert refusal(lambda: api.VM.assert_can_boot_here(vm, host))[0] == "HOST_NOT_ENOUGH_FREE_MEMORY"
    api.VM.set_memory(vm, memory)
    assert api.VM.get_possible_hosts(vm) == [host]


def test_an_appliance_starts_and_stops_its_vms_together(lab: RunningLab, api: Any, vm: str) -> None:
    group = api.VM_appliance.create({"name_label": "shop", "name_description": ""})
    assert refusal(lambda: api.VM_appliance.start(group, False)) == ["OPERATION_NOT_ALLOWED", "Appliance has no VMs."]
    vms = [vm, vm_named(api, "beta")]
    for each in vms:
        api.VM.set_appliance(each, group)
    lab.control.advance(LONG_S)
    assert set(api.VM_appliance.get_allowed_operations(group)) == {"clean_shutdown", "hard_shutdown", "shutdown"}
    assert refusal(lambda: api.VM_appliance.start(group, False))[0] == "OPERATION_NOT_ALLOWED"
    api.VM_appliance.clean_shutdown(group)
    assert [api.VM.get_power_state(each) for each in vms] == ["Halted", "Halted"]
    api.VM.add_to_blocked_operations(vm, "start", "not this one")
    refused = refusal(lambda: api.VM_appliance.start(group, False))
    assert refused == ["OPERATION_PARTIALLY_FAILED", "VM_appliance.start", vm]
    assert api.VM.get_power_state(vms[1]) == "Running"
    api.VM.remove_from_blocked_operations(vm, "start")
    api.VM_appliance.start(group, False)
    for each in vms:
        api.VM.set_appliance(each, NULL)
    api.VM_appliance.destroy(group)


@pytest.mark.slow(reason="starts a lab twice")
def test_a_guest_that_had_not_reported_does_so_after_the_lab_comes_back(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, delays=LabDelays(tools_s=LONG_S)) as lab, logged_in(lab) as session:
        api = session.xenapi
        api.VM.hard_reboot(vm_named(api, "alpha"))
        assert not has_reported(api, vm_named(api, "alpha"))
    with tiny_lab(tmp_path, delays=LabDelays(tools_s=LONG_S)) as lab, logged_in(lab) as session:
        api = session.xenapi
        assert not has_reported(api, vm_named(api, "alpha"))
        lab.control.advance(2 * LONG_S)
        assert has_reported(api, vm_named(api, "alpha"))


@pytest.mark.slow(reason="makes a file system and writes for a moment")
def test_a_guest_that_writes_is_still_while_its_vm_sleeps(tmp_path: Path) -> None:
    with tiny_lab(tmp_path, scenario="tiny") as lab, logged_in(lab) as session:
        api, disks = session.xenapi, lab.pool.disks
        vm = vm_named(api, "web")
        disk = uuid_of(api, first_disk(api, vm))
        before = disks.sha256(disk)
        lab.control.start_writing(disk)
        wait_until(lab, lambda: disks.sha256(disk) != before)
        api.VM.suspend(vm)
        still = disks.sha256(disk)
        lab.control.advance(LONG_S)
        assert disks.sha256(disk) == still
        api.VM.resume(vm, False, False)
        wait_until(lab, lambda: disks.sha256(disk) != still)
        lab.control.stop_writing(disk)
