"""VMs and pools as they really are: odd names, odd sizes, disks that come and go, settings that must not be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.faces.conftest import Cli, backup, leftovers, points, write_as_guest
from tests.support.lab import logged_in, tiny_lab

pytestmark = pytest.mark.slow(reason="a lab pool, several whole runs")

MIB = 1 << 20


def _vm(session: Any, name: str) -> str:
    (ref,) = session.xenapi.VM.get_by_name_label(name)
    return str(ref)


def _add_disk(lab: RunningLab, vm_name: str, *, position: int, size_bytes: int, data: bytes, image: str = "vhd") -> str:
    """Give a VM a disk with this content at its beginning and its very end; return its uuid."""
    with logged_in(lab) as session:
        api, vm = session.xenapi, _vm(session, vm_name)
        sr = api.pool.get_default_SR(api.pool.get_all()[0])
        facts = {"name_label": f"extra {position}", "name_description": "", "SR": sr, "virtual_size": str(size_bytes)}
        config = {"image-format": image} if image != "vhd" else {}
        options = {"type": "user", "sharable": False, "read_only": False, "other_config": {"kept": "yes"}}
        vdi = api.VDI.create({**facts, **options, "xenstore_data": {}, "sm_config": config, "tags": ["gold"]})
        place = {"VM": vm, "VDI": vdi, "userdevice": str(position), "bootable": False, "mode": "RW", "type": "Disk"}
        rest = {"unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": ""}
        api.VBD.create({**place, **rest, "qos_algorithm_params": {}})
        uuid = str(api.VDI.get_uuid(vdi))
    lab.pool.disks.write(uuid, 0, data)
    lab.pool.disks.write(uuid, lab.pool.disks.size_bytes(uuid) - len(data), data)
    return uuid


def _assert_restores(cli: Cli, lab: RunningLab, point: dict[str, Any], *, name: str) -> dict[str, Any]:
    """Restore a point whose disks have not changed since; hold each against the live disk; return the report."""
    report: dict[str, Any] = cli("restore", "vm", point["id"], "--repository", "main", "--pool", "lab", "--name", name)
    live = {disk["position"]: disk["uuid"] for disk in point["disks"]}
    restored = report["run"]["result"]["disks"]
    assert {disk["position"] for disk in restored} == set(live)
    for disk in restored:
        assert lab.control.sha256(disk["disk"]) == lab.control.sha256(live[disk["position"]])
    return report


def test_names_are_only_names(ready: Cli, lab: RunningLab) -> None:
    """Two VMs of one name, with letters of the world, a slash, brackets and quotes in it."""
    name = "Büro/日本 [bold] 'x' 🙂"
    with logged_in(lab) as session:
        for old in ("alpha", "beta"):
            session.xenapi.VM.set_name_label(_vm(session, old), name)
        first = session.xenapi.VM.get_by_name_label(name)[0]
        session.xenapi.VM.set_tags(first, ["größer", "a b"])
    error = backup(ready, "--vm", name, status=2)["error"]
    assert "uuid" in error["next_step"].lower()
    report = backup(ready, "--all", "--keep", "1")
    assert [each["vm_name"] for each in report["run"]["result"]["vms"]] == [name, name]
    assert leftovers(lab) == []
    found = points(ready, "--vm", name)
    assert len(found) == 2
    for number, point in enumerate(found):
        _assert_restores(ready, lab, point, name=f"{name} {number}")
    assert name in ready.text("point", "list", "--repository", "main")
    with logged_in(lab) as session:
        tags = [sorted(session.xenapi.VM.get_tags(_vm(session, f"{name} {number}"))) for number in range(2)]
    assert ["a b", "größer"] in tags


def test_disks_of_any_size_that_come_go_and_grow(ready: Cli, lab: RunningLab) -> None:
    sizes = (5 * MIB + 512, 2 * MIB + 65536, 40 * MIB)
    uuids = [
        _add_disk(lab, "alpha", position=number, size_bytes=size, data=bytes([number]) * 70_000)
        for number, size in enumerate(sizes, start=4)
    ]
    backup(ready, "--vm", "alpha")
    _assert_restores(ready, lab, points(ready)[-1], name="first")
    with logged_in(lab) as session:
        api, vm = session.xenapi, _vm(session, "alpha")
        api.VM.hard_shutdown(vm)
        for vbd in api.VM.get_VBDs(vm):
            if api.VBD.get_userdevice(vbd) == "4":
                api.VBD.destroy(vbd)
        api.VDI.resize(api.VDI.get_by_uuid(uuids[2]), str(48 * MIB))
    lab.pool.disks.write(uuids[2], 47 * MIB, b"grown" * 1000)
    result = backup(ready, "--vm", "alpha")["run"]["result"]["vms"][0]
    assert {disk["position"]: disk["source"] for disk in result["disks"]} == {"0": "cbt", "5": "cbt", "6": "full"}
    report = _assert_restores(ready, lab, points(ready)[-1], name="second")
    assert [disk["size_bytes"] for disk in report["run"]["result"]["disks"]][-1] == 48 * MIB
    with logged_in(lab) as session:
        api = session.xenapi
        made = api.VDI.get_by_uuid(report["run"]["result"]["disks"][-1]["disk"])
        assert api.VDI.get_other_config(made).get("kept") == "yes"
        assert api.VDI.get_tags(made) == ["gold"]
    assert leftovers(lab) == []


def test_a_disk_of_3_tib_takes_as_long_as_what_it_holds(ready: Cli, lab: RunningLab) -> None:
    """Too large for a VHD, so the pool keeps it as qcow2; read with its holes it would take more than an hour."""
    size = 3 << 40
    uuid = _add_disk(lab, "alpha", position=4, size_bytes=size, data=b"scanned" * 10_000, image="qcow2")
    disks, found = lab.pool.disks, []
    for number in range(2):
        (vm,) = backup(ready, "--vm", "alpha")["run"]["result"]["vms"]
        found.append(next(disk for disk in vm["disks"] if disk["position"] == "4"))
        if number == 0:
            disks.write(uuid, 1 << 40, b"more" * 100)
    assert [(disk["source"], disk["provisioned_bytes"]) for disk in found] == [("full", size), ("cbt", size)]
    assert [disk["read_bytes"] for disk in found] == [4 * 65536, 65536]
    assert "without its holes" in found[0]["reason"]
    report = ready("restore", "vm", points(ready)[-1]["id"], "--repository", "main", "--pool", "lab", "--name", "copy")
    made = next(disk["disk"] for disk in report["run"]["result"]["disks"] if disk["position"] == "4")
    assert disks.size_bytes(made) == size
    assert disks.allocated_blocks(made).tolist() == disks.allocated_blocks(uuid).tolist()
    for offset in (0, 1 << 40, size - 2 * MIB):
        assert disks.read(made, offset, 2 * MIB) == disks.read(uuid, offset, 2 * MIB)
    with logged_in(lab) as session:
        assert session.xenapi.VDI.get_sm_config(session.xenapi.VDI.get_by_uuid(made))["image-format"] == "qcow2"
    assert leftovers(lab) == []


def test_settings_of_a_vm_survive_and_nothing_starts_by_itself(ready: Cli, lab: RunningLab) -> None:
    with logged_in(lab) as session:
        api, vm = session.xenapi, _vm(session, "beta")
        api.VM.set_order(vm, "7")
        api.VM.set_start_delay(vm, "30")
        api.VM.set_ha_restart_priority(vm, "restart")
        api.VM.add_to_other_config(vm, "auto_poweron", "true")
        api.VM.add_to_blocked_operations(vm, "destroy", "do not")
        before = api.VM.get_record(vm)
    backup(ready, "--vm", "beta")
    report = _assert_restores(ready, lab, points(ready)[-1], name="copy")
    notes = "\n".join(report["run"]["result"]["notes"])
    for part in ("high availability", "automatic start", "identity"):
        assert part in notes
    with logged_in(lab) as session:
        api, copy = session.xenapi, _vm(session, "copy")
        after = api.VM.get_record(copy)
        drives = [api.VBD.get_userdevice(vbd) for vbd in after["VBDs"] if api.VBD.get_type(vbd) == "CD"]
    for field in ("order", "start_delay", "memory_static_max", "HVM_boot_params", "NVRAM", "platform"):
        assert after[field] == before[field], field
    assert (after["ha_restart_priority"], after["power_state"]) == ("", "Halted")
    assert "auto_poweron" not in after["other_config"]
    assert after["blocked_operations"] == {"destroy": "do not"}
    assert after["generation_id"] != before["generation_id"]
    assert drives == ["2"]
    assert leftovers(lab) == []


def test_a_virtual_tpm_comes_back_with_its_vm(ready: Cli, lab: RunningLab) -> None:
    with logged_in(lab) as session:
        vm = _vm(session, "beta")
        session.xenapi.VM.hard_shutdown(vm)
        session.xenapi.VTPM.create(vm, False)
        networks = session.xenapi.network.get_all()
    backup(ready, "--vm", "beta")
    words = ("restore", "vm", points(ready)[0]["id"], "--repository", "main", "--pool", "lab", "--dry-run")
    assert "with its virtual TPM" in ready.text(*words)
    report = _assert_restores(ready, lab, points(ready)[0], name="copy <&> ü")
    assert report["run"]["findings"] == []
    with logged_in(lab) as session:
        api, copy = session.xenapi, _vm(session, "copy <&> ü")
        record = api.VM.get_record(copy)
        macs = {api.VIF.get_MAC(vif) for vif in record["VIFs"]}
        originals = {api.VIF.get_MAC(vif) for vif in api.VM.get_VIFs(_vm(session, "beta"))}
        assert sorted(api.network.get_all()) == sorted(networks)
    assert len(record["VTPMs"]) == 1
    assert len(macs) == 2
    assert not macs & originals
    assert leftovers(lab) == []


@pytest.mark.parametrize("options", [{"nbd": "none"}, {"cbt": False, "nbd": "none"}], ids=["no NBD", "no CBT, no NBD"])
def test_without_nbd_increments_are_still_increments(cli: Cli, tmp_path: Path, options: dict[str, Any]) -> None:
    with tiny_lab(**options) as lab:
        cli("pool", "add", "lab", lab.url, "--yes")
        cli("repository", "create", "main", str(tmp_path / "repository"))
        sources = []
        for number in range(3):
            write_as_guest(lab, "alpha", offset_bytes=(20 + number) * MIB, data=bytes([number + 1]) * 100)
            (disk,) = backup(cli, "--vm", "alpha")["run"]["result"]["vms"][0]["disks"]
            sources.append(disk["source"])
        assert sources == ["full", "vhd-difference", "vhd-difference"]
        assert len(leftovers(lab)) == 1, "one snapshot, whole, is the reference"
        _assert_restores(cli, lab, points(cli)[-1], name="copy")
        plan = cli("pool", "clean", "lab", "--all", "--dry-run")["plan"]
        assert any("asked for" in line for line in plan)
        cli("pool", "clean", "lab", "--all", status=2)
        assert cli("pool", "clean", "lab", "--all", "--yes")["left"] == []
        assert lab.control.leftovers() == []
        (disk,) = backup(cli, "--vm", "alpha")["run"]["result"]["vms"][0]["disks"]
        assert (disk["source"], disk["new_bytes"]) == ("full", 0)


def test_two_repositories_have_references_of_their_own_and_a_forgotten_ones_can_be_cleaned(
    ready: Cli, lab: RunningLab, tmp_path: Path
) -> None:
    ready("repository", "create", "second", str(tmp_path / "second"), "--no-secret")
    for name in ("main", "second", "main", "second"):
        report = ready("backup", "run", "--pool", "lab", "--repository", name, "--vm", "alpha")
    (disk,) = report["run"]["result"]["vms"][0]["disks"]
    assert disk["source"] == "cbt"
    assert len(lab.control.ours()) == 2
    ready("repository", "remove", "second", "--yes")
    assert len(ready("pool", "clean", "lab", "--yes")["removed"]) == 1
    (disk,) = backup(ready, "--vm", "alpha")["run"]["result"]["vms"][0]["disks"]
    assert disk["source"] == "cbt", "the reference of the other repository was not touched"
    assert ready("pool", "remove", "lab")["references"] == 1
    assert len(ready("pool", "list")) == 0


def test_the_pools_hosts_are_remembered_so_that_a_new_master_is_followed(ready: Cli, lab: RunningLab) -> None:
    config = ready("pool", "show", "lab")["config"]
    assert config["trust"] == f"sha256:{lab.fingerprint}"
    assert lab.fingerprint in config["other_hosts"]
