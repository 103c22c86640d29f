"""Virtual disks, drives and network cards: names, sharing, plugging, addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.core import MIB
from holdfast.lab import RunningLab
from holdfast.lab.calls import derived_mac
from tests.unit.lab.talk import has_reported, new_disk, refusal, vm_named

NULL = "OpaqueRef:NULL"


@pytest.fixture
def vm(lab: RunningLab, api: Any) -> Iterator[str]:
    """A halted VM without disks and cards."""
    made = api.VM.clone(api.VM.snapshot(vm_named(api, "alpha"), "source"), "devices")
    api.VM.set_is_a_template(made, False)
    for vbd in api.VM.get_VBDs(made):
        api.VBD.destroy(vbd)
    for vif in api.VM.get_VIFs(made):
        api.VIF.destroy(vif)
    yield made
    if api.VM.get_power_state(made) != "Halted":
        api.VM.hard_shutdown(made)
    api.VM.destroy(made)


@pytest.fixture
def vdi(lab: RunningLab, api: Any) -> Iterator[str]:
    made = new_disk(api, 2 * MIB)
    yield made
    if made in api.VDI.get_all():
        api.VDI.destroy(made)


def attachment(vm: str, vdi: str, userdevice: str = "autodetect", **changes: Any) -> dict[str, Any]:
    return {
        "VM": vm,
        "VDI": vdi,
        "userdevice": userdevice,
        "bootable": False,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": True,
        "empty": False,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **changes,
    }


def card(vm: str, network: str, device: str, **changes: Any) -> dict[str, Any]:
    return {
        "VM": vm,
        "network": network,
        "device": device,
        "MAC": "",
        "MTU": "1500",
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **changes,
    }


def drive(vm: str, userdevice: str = "autodetect") -> dict[str, Any]:
    return attachment(vm, NULL, userdevice, mode="RO", type="CD", empty=True)


@pytest.mark.parametrize(
    ("first", "second", "clashes"),
    [
        ("0", "xvda", True),
        ("0", "hda", True),
        ("xvda", "hda", False),
        ("0", "sda", False),
        ("5", "xvdf", True),
        ("25", "xvdz", True),
        ("xvdaa", "26", True),
        ("xvda1", "0", False),
        ("d3", "3", True),
        ("0x10", "16", True),
    ],
)
def test_two_names_of_one_place_clash(api: Any, vm: str, first: str, second: str, clashes: bool) -> None:
    api.VBD.create(drive(vm, first))
    if clashes:
        assert refusal(lambda: api.VBD.create(drive(vm, second))) == ["DEVICE_ALREADY_EXISTS", second]
    else:
        api.VBD.create(drive(vm, second))


@pytest.mark.parametrize("name", ["", "nonsense", "xvdA", "xvda1b", "d", "d5p", "1.5", " 1", f"xvda{1 << 62}"])
def test_a_name_of_no_place_is_refused(api: Any, vm: str, name: str) -> None:
    assert refusal(lambda: api.VBD.create(drive(vm, name))) == ["INVALID_DEVICE", name]


@pytest.mark.parametrize("name", ["xvd", "sd", "fdz", "sdz", "hdzz", "d1p99", "xvd1", "+3", "0u5", "-1", "1048576"])
def test_a_name_of_a_place_that_no_machine_has_is_accepted(api: Any, vm: str, name: str) -> None:
    assert api.VBD.get_userdevice(api.VBD.create(drive(vm, name))) == name


def test_what_cannot_be_attached_at_all_is_refused_in_the_pools_order(
    lab: RunningLab, api: Any, vm: str, vdi: str
) -> None:
    def create(**changes: Any) -> list[str]:
        return refusal(lambda: api.VBD.create(attachment(vm, vdi, **changes)))

    assert create(type="CD") == ["VBD_CDS_MUST_BE_READONLY"]
    assert create(empty=True) == ["VBD_NOT_REMOVABLE_MEDIA", "in constructor"]
    assert create(VDI="OpaqueRef:x", type="CD") == ["HANDLE_INVALID", "VDI", "OpaqueRef:x"]
    lab.pool.db.set("VDI", vdi, "read_only", True)
    assert create() == ["VDI_READONLY", vdi]
    lab.pool.db.update("VDI", vdi, {"read_only": False, "type": "ha_statefile"})
    assert create()[:2] == ["VDI_INCOMPATIBLE_TYPE", vdi]
    lab.pool.db.set("VDI", vdi, "type", "user")


def test_a_disk_that_somebody_writes_cannot_be_attached_twice(api: Any, vm: str, vdi: str) -> None:
    other = vm_named(api, "beta")
    mine, theirs = api.VBD.create(attachment(vm, vdi)), api.VBD.create(attachment(other, vdi))
    api.VBD.plug(theirs)
    assert refusal(lambda: api.VBD.assert_attachable(mine)) == ["VDI_IN_USE", vdi]
    assert refusal(lambda: api.VM.start(vm, False, False)) == ["VDI_IN_USE", vdi]
    assert refusal(lambda: api.VBD.plug(theirs)) == ["DEVICE_ALREADY_ATTACHED", theirs]
    assert "attached to" in refusal(lambda: api.VBD.destroy(theirs))[1]
    api.VBD.unplug(theirs)
    assert refusal(lambda: api.VBD.unplug(theirs)) == ["DEVICE_ALREADY_DETACHED", theirs]
    api.VBD.destroy(theirs)
    api.VBD.assert_attachable(mine)


def test_a_running_emulated_machine_takes_no_disk_that_it_may_not_write(api: Any, vm: str, vdi: str) -> None:
    other = vm_named(api, "beta")
    vbd = api.VBD.create(attachment(other, vdi, mode="RO"))
    assert refusal(lambda: api.VBD.plug(vbd)) == ["DISK_VBD_MUST_BE_READWRITE_FOR_HVM", vbd]
    assert refusal(lambda: api.VBD.set_mode(vbd, "RW")) == ["VM_BAD_POWER_STATE", other, "halted", "running"]
    api.VBD.destroy(vbd)


def test_a_guest_without_tools_takes_nothing_while_it_runs(lab: RunningLab, api: Any, vm: str, vdi: str) -> None:
    vbd = api.VBD.create(attachment(vm, vdi))
    vif = api.VIF.create(card(vm, api.network.get_all()[0], "0"))
    api.VM.start(vm, False, False)
    lab.control.advance(60)
    assert not has_reported(api, vm)  # nothing on its disk boots
    assert refusal(lambda: api.VBD.unplug(vbd)) == ["VM_MISSING_PV_DRIVERS", vm]
    assert refusal(lambda: api.VIF.unplug(vif)) == ["VM_MISSING_PV_DRIVERS", vm]
    assert api.VBD.get_allowed_operations(vbd) == ["attach", "pause", "unpause"]
    assert refusal(lambda: api.VIF.destroy(vif)) == ["OPERATION_NOT_ALLOWED", "VIF currently attached to a running VM"]
    api.VM.hard_shutdown(vm)


def test_discs_go_in_and_out_of_drives_only(api: Any, vm: str, vdi: str) -> None:
    slot, disk = api.VBD.create(drive(vm)), api.VBD.create(attachment(vm, vdi))
    assert refusal(lambda: api.VBD.eject(slot)) == ["VBD_IS_EMPTY", slot]
    assert refusal(lambda: api.VBD.eject(disk)) == ["VBD_NOT_REMOVABLE_MEDIA", disk]
    assert set(api.VBD.get_allowed_operations(slot)) == {"attach", "insert"}
    api.VBD.insert(slot, vdi)
    assert refusal(lambda: api.VBD.insert(slot, vdi)) == ["VBD_NOT_EMPTY", slot]
    assert set(api.VBD.get_allowed_operations(slot)) == {"attach", "eject"}
    api.VBD.eject(slot)
    assert api.VBD.get_VDI(slot) == NULL


def test_a_pool_lists_what_the_old_kind_of_device_allowed_until_it_looks_again(api: Any, vm: str, vdi: str) -> None:
    vbd = api.VBD.create(attachment(vm, vdi))
    api.VBD.set_type(vbd, "CD")
    assert api.VBD.get_allowed_operations(vbd) == ["attach"]


def test_addresses_follow_from_the_seed_as_on_any_pool(api: Any, vm: str) -> None:
    seed = api.VM.get_other_config(vm)["mac_seed"]
    network = api.network.get_all()[0]
    vifs = [api.VIF.create(card(vm, network, device)) for device in ("0", "3")]
    macs = [api.VIF.get_MAC(vif) for vif in vifs]
    assert macs == [derived_mac(seed, "0"), derived_mac(seed, "3")]
    assert all(api.VIF.get_MAC_autogenerated(vif) for vif in vifs)
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs), "locally administered, and of one card"


def test_a_vm_without_a_seed_must_be_told_its_addresses(api: Any, vm: str) -> None:
    api.VM.remove_from_other_config(vm, "mac_seed")
    network = api.network.get_all()[0]
    assert refusal(lambda: api.VIF.create(card(vm, network, "0"))) == ["MAC_INVALID", ""]
    vif = api.VIF.create(card(vm, network, "0", MAC="02:00:00:00:00:09"))
    assert api.VIF.get_MAC_autogenerated(vif) is False
    assert refusal(lambda: api.VIF.create(card(vm, network, "00", MAC="02:00:00:00:00:10")))[0] == (
        "DEVICE_ALREADY_EXISTS"
    )


def test_what_a_card_may_send_is_checked(api: Any, vm: str) -> None:
    vif = api.VIF.create(card(vm, api.network.get_all()[0], "0"))
    api.VIF.set_ipv4_allowed(vif, ["10.0.0.1", "10.0.0.1"])
    assert api.VIF.get_ipv4_allowed(vif) == ["10.0.0.1"]
    assert refusal(lambda: api.VIF.add_ipv4_allowed(vif, "nowhere")) == ["INVALID_IP_ADDRESS_SPECIFIED", "ipv4_allowed"]
    assert refusal(lambda: api.VIF.configure_ipv4(vif, "Static", "10.0.0.1", "")) == [
        "INVALID_CIDR_ADDRESS_SPECIFIED",
        "address",
    ]
    assert refusal(lambda: api.VIF.configure_ipv4(vif, "None", "", "")) == ["VM_LACKS_FEATURE", vm]
    assert refusal(lambda: api.VIF.set_trunks(vif, ["4095"])) == ["VLAN_TAG_INVALID", "4095"]
    api.VIF.add_trunks(vif, "7")
    assert api.VIF.get_trunks(vif) == ["7"]


def test_a_vm_with_a_device_of_its_host_is_tied_to_it(lab: RunningLab, api: Any, vm: str) -> None:
    group = lab.pool.db.create("USB_group", {"name_label": "stick"})
    vusb = api.VUSB.create(vm, group, {})
    assert refusal(lambda: api.VUSB.create(vm, group, {})) == ["USB_GROUP_CONFLICT", group]
    assert refusal(lambda: api.VM.snapshot(vm, "x")) == ["VM_HAS_VUSBS", vm]
    api.VUSB.destroy(vusb)
    vgpu = api.VGPU.create(vm, NULL, "0", {}, NULL)
    assert refusal(lambda: api.VGPU.create(vm, NULL, "0", {}, NULL)) == ["DEVICE_ALREADY_EXISTS", "0"]
    assert refusal(lambda: api.VM.assert_agile(vm)) == ["VM_HAS_VGPU", vm]
    api.VGPU.destroy(vgpu)
    api.VM.snapshot(vm, "free again")
