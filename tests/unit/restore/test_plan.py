"""The plan tells beforehand where everything goes and what will not come back exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.core import Cancellation
from holdfast.model import JsonObject, Nic
from holdfast.restore import (
    Fidelity,
    MacPolicy,
    NoTargetSr,
    RestorePlan,
    RestoreWishes,
    SrTooSmall,
    SrUnsuitable,
    measure_data,
    plan_restore,
)
from holdfast.xapi import Inventory, VmUnknown
from tests.support.flows import MemoryPool, blocks, network, sr
from tests.support.repositories import World
from tests.unit.restore.points import make_point, saved_vm


@pytest.fixture
def pool() -> MemoryPool:
    return MemoryPool()


def _plan(
    pool: MemoryPool,
    wishes: RestoreWishes | None = None,
    *,
    record: JsonObject | None = None,
    metadata: bytes = b"",
    inventory: Inventory | None = None,
) -> RestorePlan:
    world = World()
    point = make_point(world, blocks(1, 0, 0), blocks(2), record=record, metadata=metadata)
    return plan_restore(
        point,
        inventory or pool.inventory(),
        wishes or RestoreWishes(),
        data_bytes=measure_data(world.repository, point, cancel=Cancellation()),
        fresh_generation="7:7",
    )


def _notes(plan: RestorePlan) -> dict[str, str]:
    return {note.subject: note.text for note in plan.notes}


def _with_nic(pool: MemoryPool, mac: str, **changes: Any) -> None:
    pool.add_vm("other", nics=(Nic(position="0", mac=mac, network=None, record={}),), **changes)


def test_a_lost_vm_comes_back_as_itself(pool: MemoryPool) -> None:
    plan = _plan(pool)
    assert plan.name == "web"
    assert [disk.data_bytes for disk in plan.disks] == [65536, 65536]
    assert plan.data_bytes == 2 * 65536
    assert plan.record["other_config"] == {"mac_seed": "seed", "folder": "prod"}
    assert plan.record["generation_id"] == "7:7", "a guest that goes back in time must notice"
    assert (plan.record["order"], plan.record["start_delay"]) == ("3", "10")
    assert [nic.mac for nic in plan.nics] == ["02:00:00:00:00:01", "02:00:00:00:00:02"]
    assert plan.drives == ("3", "4")
    notes = _notes(plan)
    assert "dmz" in notes["network card 1"]
    assert notes["CD drive 3"] == "comes back empty"
    assert set(notes) == {"home host", "generation id", "network card 1", "CD drive 3"}
    told = plan.explain()
    assert "card 0: network 'lan' (the same network), MAC 02:00:00:00:00:01" in told
    assert "card 1: left out" in told
    assert "the VM stays halted" in told


def test_beside_its_original_it_is_a_copy_that_cannot_disturb_it(pool: MemoryPool) -> None:
    pool.add_vm("web", uuid="vm-web", nics=(Nic(position="0", mac="02:00:00:00:00:01", network=None, record={}),))
    record = saved_vm(other_config={"auto_poweron": "true", "mac_seed": "seed"}, ha_restart_priority="restart")
    plan = _plan(pool, record=record)
    assert plan.record["other_config"] == {}
    assert [nic.mac for nic in plan.nics] == ["", ""]
    assert "ha_restart_priority" not in plan.record
    assert {"identity", "name", "automatic start", "high availability"} <= set(_notes(plan))


def test_a_lost_vm_keeps_its_automatic_start(pool: MemoryPool) -> None:
    plan = _plan(pool, record=saved_vm(other_config={"auto_poweron": "true"}))
    assert plan.record["other_config"] == {"auto_poweron": "true"}


@pytest.mark.parametrize(
    ("policy", "macs"),
    [
        (MacPolicy.AUTO, ["", ""]),
        (MacPolicy.NEW, ["", ""]),
        (MacPolicy.KEEP, ["02:00:00:00:00:01", "02:00:00:00:00:02"]),
    ],
)
def test_a_mac_address_of_another_vm_is_taken_twice_only_when_asked(
    pool: MemoryPool, policy: MacPolicy, macs: list[str]
) -> None:
    _with_nic(pool, "02:00:00:00:00:02".upper())
    plan = _plan(pool, RestoreWishes(mac=policy))
    assert [nic.mac for nic in plan.nics] == macs
    assert ("MAC addresses" in _notes(plan)) == (policy is MacPolicy.KEEP)
    assert ("mac_seed" in str(plan.record["other_config"])) == (policy is MacPolicy.KEEP)


def test_networks_are_found_by_mapping_by_uuid_by_name_or_not_at_all(pool: MemoryPool) -> None:
    pool.networks.append(network("net-5", "dmz"))
    assert [nic.why for nic in _plan(pool).nics] == ["the same network", "by its name"]
    mapped = _plan(pool, RestoreWishes(network_map={"lan": "dmz", "net-9": "net-1"}))
    assert [nic.network.uuid for nic in mapped.nics if nic.network] == ["net-5", "net-1"]
    pool.networks.append(network("net-6", "dmz"))
    assert "ambiguous" in _plan(pool).nics[1].why
    with pytest.raises(VmUnknown):
        _plan(pool, RestoreWishes(network_map={"lan": "nowhere"}))


def test_an_sr_is_named_or_the_pools_default(pool: MemoryPool) -> None:
    pool.srs.append(sr(uuid="sr-2", name="fast"))
    assert _plan(pool, RestoreWishes(sr="fast")).disks[0].sr.uuid == "sr-2"
    without = pool.inventory()
    without = replace(without, pool=replace(without.pool, default_sr=None))
    with pytest.raises(NoTargetSr):
        _plan(pool, inventory=without)


@pytest.mark.parametrize("changes", [{"kind": "iso"}, {"content_type": "iso"}, {"kind": "udev"}])
def test_an_sr_of_images_is_refused(pool: MemoryPool, changes: dict[str, str]) -> None:
    pool.srs[:] = [sr(**changes)]
    with pytest.raises(SrUnsuitable):
        _plan(pool)


@pytest.mark.parametrize(
    ("kind", "free_bytes", "fits"),
    [("ext", 2 * 65536, True), ("ext", 2 * 65536 - 1, False), ("lvm", 4 * 65536, True), ("lvm", 4 * 65536 - 1, False)],
)
def test_room_is_counted_as_the_sr_needs_it(pool: MemoryPool, kind: str, free_bytes: int, fits: bool) -> None:
    pool.srs[:] = [sr(kind=kind, free_bytes=free_bytes)]
    if fits:
        assert _plan(pool).disks
    else:
        with pytest.raises(SrTooSmall):
            _plan(pool)


def test_an_sr_that_does_not_say_its_size_is_tried(pool: MemoryPool) -> None:
    pool.srs[:] = [sr(physical_size_bytes=0, free_bytes=0)]
    assert _plan(pool).disks


def test_a_virtual_tpm_comes_back_through_the_pools_own_description_or_not_at_all(pool: MemoryPool) -> None:
    record = saved_vm(VTPMs=["OpaqueRef:tpm"])
    with_it = _plan(pool, record=record, metadata=b"tar")
    assert with_it.from_description
    assert "virtual TPM" in with_it.explain()
    assert "virtual TPM" not in _notes(with_it)
    without = _plan(pool, record=record)
    assert not without.from_description
    impossible = [note.subject for note in without.notes if note.fidelity is Fidelity.IMPOSSIBLE]
    assert impossible == ["virtual TPM"]
    assert not _plan(pool, metadata=b"tar").from_description


def test_devices_and_states_that_do_not_come_back_are_told(pool: MemoryPool) -> None:
    record = saved_vm(VGPUs=["x"], VUSBs=["x"], attached_PCIs=["x"], power_state="Suspended", appliance="OpaqueRef:a")
    notes = _notes(_plan(pool, record=record))
    assert {"virtual GPU", "USB device", "PCI device", "power state", "appliance"} <= set(notes)


@pytest.mark.parametrize("record", [{}, {"VM": "?", "VBD": "?", "cards": "?"}, {"VM": {"other_config": "?"}}])
def test_a_record_that_lacks_everything_still_makes_a_plan(pool: MemoryPool, record: JsonObject) -> None:
    plan = _plan(pool, RestoreWishes(start=True), record=record)
    assert plan.record["name_label"] == "web"
    assert (plan.nics, plan.drives) == ((), ())
    assert "the VM is started" in plan.explain()


@pytest.mark.parametrize("generation", ["", "0:0"])
def test_a_vm_without_a_generation_id_gets_none(pool: MemoryPool, generation: str) -> None:
    assert _plan(pool, record=saved_vm(generation_id=generation)).record["generation_id"] == generation
