"""What may be set of a VM, when, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.core import GIB, MIB
from holdfast.lab import RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import refusal, vm_named

NULL = "OpaqueRef:NULL"
ORDER = ["MEMORY_CONSTRAINT_VIOLATION_ORDER"]


def vm_record(**changes: Any) -> dict[str, Any]:
    return {
        "name_label": "fields",
        "name_description": "",
        "user_version": "1",
        "is_a_template": False,
        "affinity": NULL,
        "memory_static_max": str(GIB),
        "memory_dynamic_max": str(GIB),
        "memory_dynamic_min": str(GIB),
        "memory_static_min": str(GIB // 2),
        "VCPUs_params": {},
        "VCPUs_max": "2",
        "VCPUs_at_startup": "2",
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "PV_bootloader": "",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "cd"},
        "HVM_shadow_multiplier": 1.0,
        "platform": {},
        "PCI_bus": "",
        "other_config": {},
        "recommendations": "",
        "has_vendor_device": False,
        **changes,
    }


@pytest.fixture
def vm(api: Any) -> Iterator[str]:
    """A halted VM with nothing in it."""
    made = api.VM.create(vm_record())
    yield made
    if made in api.VM.get_all():
        api.VM.set_is_default_template(made, False)
        api.VM.set_blocked_operations(made, {})
        api.VM.destroy(made)


@pytest.fixture(scope="module")
def recorded() -> Iterator[Any]:
    """The calls of a pool without a hypervisor and without a licence."""
    with tiny_lab(scenario="recorded", nbd="none") as lab, logged_in(lab) as session:
        yield session.xenapi


def test_only_a_suspended_vm_takes_its_state_from_the_record(api: Any) -> None:
    made = api.VM.create(vm_record(power_state="Running", last_booted_record="x", suspend_VDI="OpaqueRef:x"))
    record = api.VM.get_record(made)
    assert (record["power_state"], record["last_booted_record"], record["suspend_VDI"]) == ("Halted", "", NULL)
    api.VM.destroy(made)
    kept = {"power_state": "Suspended", "last_booted_record": "x", "last_boot_CPU_flags": {"vendor": "x"}}
    assert refusal(lambda: api.VM.create(vm_record(**kept)))[2:] == ["halted", "suspended"]
    made = api.VM.create(vm_record(**kept, suspend_VDI="OpaqueRef:x"))
    assert api.VM.get_power_state(made) == "Suspended"
    api.VM.hard_shutdown(made)
    api.VM.destroy(made)


def test_the_memory_limits_keep_their_order(api: Any, vm: str) -> None:
    big = str(2 * GIB)
    assert refusal(lambda: api.VM.set_memory_static_max(vm, str(MIB))) == ORDER
    assert refusal(lambda: api.VM.set_memory_static_min(vm, big)) == ORDER
    assert refusal(lambda: api.VM.set_memory_dynamic_range(vm, big, str(GIB))) == ORDER
    assert refusal(lambda: api.VM.set_memory(vm, "1")) == ORDER
    api.VM.set_memory_limits(vm, "1", big, "2", big)
    assert [api.VM.get_memory_static_min(vm), api.VM.get_memory_dynamic_min(vm)] == ["1", "2"]
    assert int(api.VM.get_memory_overhead(vm)) == 21 * MIB == int(api.VM.compute_memory_overhead(vm))


def test_a_running_vms_memory_changes_within_its_outer_limits_only(api: Any) -> None:
    vm = vm_named(api, "beta")
    wanted = ["VM_BAD_POWER_STATE", vm, "halted", "running"]
    assert refusal(lambda: api.VM.set_memory_static_max(vm, str(GIB))) == wanted
    assert refusal(lambda: api.VM.set_memory(vm, str(GIB))) == wanted
    low = str(int(api.VM.get_memory_static_min(vm)))
    high = api.VM.get_memory_static_max(vm)
    api.VM.set_memory_dynamic_range(vm, low, high)
    api.VM.set_memory_dynamic_range(vm, high, high)
    assert refusal(lambda: api.VM.set_VCPUs_max(vm, "4")) == wanted
    assert refusal(lambda: api.VM.set_NVRAM(vm, {})) == wanted


def test_the_largest_memory_that_fits_is_what_a_real_pool_answered(recorded: Any) -> None:
    made = recorded.VM.create(vm_record(HVM_boot_policy="", HVM_boot_params={}))
    assert recorded.VM.maximise_memory(made, str(GIB), True) == "986710016"  # recorded from a real pool
    recorded.VM.destroy(made)


def test_a_default_template_cannot_be_destroyed_and_a_template_has_no_metrics(api: Any, vm: str) -> None:
    api.VM.set_is_a_template(vm, True)
    assert api.VM.get_metrics(vm) == NULL
    api.VM.set_is_default_template(vm, True)
    assert refusal(lambda: api.VM.destroy(vm)) == ["VM_IS_TEMPLATE", vm, "destroy"]
    assert "destroy" not in api.VM.get_allowed_operations(vm)
    assert refusal(lambda: api.VM.set_appliance(vm, NULL))[0] == "OPERATION_NOT_ALLOWED"


def test_a_pool_lists_what_a_template_allowed_until_it_looks_again(api: Any, vm: str) -> None:
    api.VM.set_is_a_template(vm, True)
    listed = set(api.VM.get_allowed_operations(vm))
    api.VM.set_is_a_template(vm, False)
    assert set(api.VM.get_allowed_operations(vm)) == listed
    api.VM.update_allowed_operations(vm)
    assert "start" in api.VM.get_allowed_operations(vm)


def test_a_template_that_names_disks_gets_them_when_it_is_provisioned(api: Any, vm: str) -> None:
    sr = api.SR.get_uuid(api.pool.get_all_records().popitem()[1]["default_SR"])
    disk = '<disk device="{}" size="{}" sr="{}" bootable="true" type="system"/>'
    assert refusal(lambda: api.VM.provision(vm)) == ["PROVISION_ONLY_ALLOWED_ON_TEMPLATE"]
    api.VM.set_is_a_template(vm, True)
    api.VM.add_to_other_config(vm, "disks", f"<provision>{disk.format(0, 4 * MIB, sr)}</provision>")
    api.VM.provision(vm)
    (vbd,) = api.VM.get_VBDs(vm)
    made = api.VBD.get_VDI(vbd)
    assert (api.VDI.get_type(made), api.VDI.get_virtual_size(made)) == ("system", str(4 * MIB))
    assert api.VDI.get_name_label(made) == "0"
    assert api.VM.get_is_a_template(vm) is False and "disks" not in api.VM.get_other_config(vm)
    api.VDI.destroy(made)


def test_a_disk_that_a_template_got_stays_when_the_next_one_fails(api: Any, vm: str) -> None:
    sr = api.SR.get_uuid(api.pool.get_all_records().popitem()[1]["default_SR"])
    disk = '<disk device="{}" size="{}" sr="{}" bootable="true" type="system"/>'
    api.VM.set_is_a_template(vm, True)
    wrong = f"<provision>{disk.format(0, MIB, sr)}{disk.format(1, MIB, 'nowhere')}</provision>"
    api.VM.add_to_other_config(vm, "disks", wrong)
    assert refusal(lambda: api.VM.provision(vm)) == ["UUID_INVALID", "sr", "nowhere"]
    assert len(api.VM.get_VBDs(vm)) == 1 and api.VM.get_is_a_template(vm) is False
    assert api.VM.get_other_config(vm)["disks"] == wrong


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "XML Error: unexpected end of input line 1"),
        ("not xml", "XML Error: expected root element line 1"),
        ("<zz/>", "Xapi_templates.Parse_failure"),
        ('<provision><disk device="0"/></provision>', "Xapi_templates.Parse_failure"),
    ],
)
def test_a_template_whose_wish_cannot_be_read_stays_one(api: Any, vm: str, text: str, reason: str) -> None:
    api.VM.add_to_other_config(vm, "disks", text)
    api.VM.set_is_a_template(vm, True)
    assert refusal(lambda: api.VM.provision(vm)) == ["INTERNAL_ERROR", reason]
    assert api.VM.get_is_a_template(vm) is True


def test_a_template_of_the_pool_cannot_be_destroyed_whatever_it_became(api: Any, vm: str) -> None:
    api.VM.add_to_other_config(vm, "default_template", "true")
    assert refusal(lambda: api.VM.destroy(vm)) == ["VM_CANNOT_DELETE_DEFAULT_TEMPLATE"]
    assert api.VM.get_uuid(vm)


def test_what_was_a_template_cannot_become_one_again(api: Any, vm: str) -> None:
    api.VM.set_is_a_template(vm, True)
    api.VM.set_is_a_template(vm, False)
    assert refusal(lambda: api.VM.set_is_a_template(vm, True)) == ["HANDLE_INVALID", "VM_metrics", NULL]
    assert api.VM.get_is_a_template(vm) is False


def test_a_control_domain_that_no_host_runs_under_can_be_destroyed(lab: RunningLab, api: Any, vm: str) -> None:
    lab.pool.db.update("VM", vm, {"is_control_domain": True, "allowed_operations": []})
    assert "destroy" in api.VM.get_allowed_operations(vm)
    api.VM.destroy(vm)


def test_errors_do_not_know_every_operation(api: Any, vm: str) -> None:
    snapshot = api.VM.snapshot(vm, "s")
    assert refusal(lambda: api.VM.set_VCPUs_max(snapshot, 4)) == ["VM_IS_SNAPSHOT", snapshot, "(unknown operation)"]


def test_the_kind_of_machine_and_its_boot_policy_go_together(api: Any, vm: str) -> None:
    api.VM.set_domain_type(vm, "pvh")
    assert api.VM.get_HVM_boot_policy(vm) == ""
    api.VM.set_HVM_boot_policy(vm, "BIOS order")
    assert api.VM.get_domain_type(vm) == "hvm"
    assert refusal(lambda: api.VM.set_domain_type(vm, "unspecified")) == ["INVALID_VALUE", "domain_type", "unspecified"]
    api.VM.set_has_vendor_device(vm, True)
    assert api.VM.get_hardware_platform_version(vm) == "2"


def test_bios_strings_are_set_once_and_are_generic_after_a_start(recorded: Any, api: Any, vm: str) -> None:
    host = api.host.get_all()[0]
    text = "has non-printable ASCII characters"
    assert text in refusal(lambda: api.VM.set_bios_strings(vm, {"bios-vendor": "ä"}))[2]
    api.VM.copy_bios_strings(vm, host)
    assert api.VM.get_affinity(vm) == host
    made = recorded.VM.create(vm_record())
    assert refusal(lambda: recorded.VM.start(made, False, False)) == ["NO_HOSTS_AVAILABLE"]
    assert recorded.VM.get_bios_strings(made)["bios-vendor"] == "Xen"
    assert refusal(lambda: recorded.VM.set_bios_strings(made, {})) == ["VM_BIOS_STRINGS_ALREADY_SET"]
    host = recorded.host.get_all()[0]
    assert refusal(lambda: recorded.VM.start_on(made, host, False, False)) == ["VM_HVM_REQUIRED", made]
    recorded.VM.destroy(made)


def test_a_pool_without_a_licence_refuses_what_needs_one(recorded: Any) -> None:
    made = recorded.VM.create(vm_record())
    assert refusal(lambda: recorded.VM.set_groups(made, [])) == ["LICENCE_RESTRICTION", "VM_groups"]
    assert refusal(lambda: recorded.VM.set_snapshot_schedule(made, NULL)) == ["LICENCE_RESTRICTION", "VMSS"]
    assert refusal(lambda: recorded.VTPM.create(made, False)) == ["FEATURE_RESTRICTED", "restrict_vtpm"]
    recorded.VM.destroy(made)


def test_a_vm_has_one_trusted_module_while_it_is_halted(api: Any, vm: str) -> None:
    vtpm = api.VTPM.create(vm, False)
    assert refusal(lambda: api.VTPM.create(vm, False)) == ["VTPM_MAX_AMOUNT_REACHED", "1"]
    assert api.VTPM.get_allowed_operations(vtpm) == ["destroy"]
    copy = api.VM.clone(vm, "with module")
    assert len(api.VM.get_VTPMs(copy)) == 1
    api.VM.destroy(copy)
    assert api.VTPM.get_all() == [vtpm]
    running = vm_named(api, "alpha")
    assert refusal(lambda: api.VTPM.create(running, False)) == ["VM_BAD_POWER_STATE", running, "halted", "running"]


def test_disks_that_forget_forbid_snapshots(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "beta")
    vdi = api.VBD.get_VDI(next(b for b in api.VM.get_VBDs(vm) if api.VBD.get_type(b) == "Disk"))
    lab.pool.db.set("VDI", vdi, "on_boot", "reset")
    wanted = ["VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"]
    assert refusal(lambda: api.VM.snapshot(vm, "x")) == wanted
    assert refusal(lambda: api.VM.suspend(vm)) == wanted
    lab.pool.db.set("VDI", vdi, "on_boot", "persist")


def test_a_vm_that_must_stay_is_not_moved(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "beta")
    metrics = api.VM.get_metrics(vm)
    lab.pool.db.set("VM_metrics", metrics, "nomigrate", True)
    host = api.host.get_all()[0]
    assert refusal(lambda: api.VM.suspend(vm)) == ["VM_IS_IMMOBILE", vm]
    assert refusal(lambda: api.VM.pool_migrate(vm, host, {})) == ["VM_IS_IMMOBILE", vm]
    api.VM.pool_migrate(vm, host, {"force": "true"})
    lab.pool.db.set("VM_metrics", metrics, "nomigrate", False)


def test_two_operations_at_once_are_named_both(lab: RunningLab, api: Any, vm: str) -> None:
    lab.pool.db.set("VM", vm, "current_operations", {"a": "clone", "b": "copy"})
    assert "copy" in api.VM.get_allowed_operations(vm)
    refused = refusal(lambda: api.VM.assert_operation_valid(vm, "destroy"))
    assert refused == ["OTHER_OPERATION_IN_PROGRESS", "VM", vm, "{clone,copy}", "{a,b}"]
    lab.pool.db.set("VM", vm, "current_operations", {})


def test_a_plugin_of_the_guest_is_told_apart_from_one_that_is_not_there(api: Any) -> None:
    vm = vm_named(api, "beta")
    assert refusal(lambda: api.VM.call_plugin(vm, "other", "f", {})) == ["XENAPI_MISSING_PLUGIN", "other"]
    refused = refusal(lambda: api.VM.call_plugin(vm, "guest-agent-operation", "f", {}))
    assert refused[:2] == ["XENAPI_PLUGIN_FAILURE", "failed to find fn"]


def test_a_vm_on_one_hosts_storage_is_not_agile(api: Any, vm: str) -> None:
    api.VM.assert_agile(vm)
    tied = vm_named(api, "alpha")
    assert refusal(lambda: api.VM.assert_agile(tied))[0] == "HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED"
