"""An inventory is the pool at one moment, whatever happens while it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.core import MIB
from holdfast.model import DiskUuid
from holdfast.xapi import ObjectGone
from holdfast.xapi.tables import disk_at, inventory_of, read_tables, vm_at
from tests.unit.xapi.fake_pool import FakePool, Refusal, fake_pool, logged_in

KINDS = ("pool", "host", "SR", "network", "VM", "VBD", "VIF", "VDI")


class Rows:
    """The pool's tables, and what happens while somebody reads them."""

    def __init__(self, pool: FakePool) -> None:
        self.tables: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.events: list[dict[str, Any]] = []
        self.during: dict[str, Callable[[], None]] = {}
        """What happens right after a class was read."""
        self.extra_counts: list[int] = []
        pool.methods["event.inject"] = lambda *_: "10,0"
        pool.methods["event.from"] = self._answer
        for kind in KINDS:
            pool.methods[f"{kind}.get_all_records"] = self._reader(kind)
            pool.methods[f"{kind}.get_record"] = lambda _session, ref, kind=kind: self._record(kind, ref)
            pool.methods[f"{kind}.get_by_uuid"] = lambda _session, uuid, kind=kind: self._record(kind, uuid) and uuid
            pool.methods[f"{kind}.get_uuid"] = lambda _session, ref, kind=kind: self._record(kind, ref)["uuid"]
        self._fill()

    def put(self, kind: str, ref: str, **fields: Any) -> None:
        operation = "mod" if ref in self.tables[kind] else "add"
        self.tables[kind][ref] = {"uuid": ref, "name_label": ref, **fields}
        event = {"class": kind.lower(), "operation": operation, "ref": ref, "snapshot": self.tables[kind][ref]}
        self.events.append(event)

    def remove(self, kind: str, ref: str) -> None:
        del self.tables[kind][ref]
        self.events.append({"class": kind.lower(), "operation": "del", "ref": ref})

    def vm(self, ref: str, **fields: Any) -> None:
        plain = {"is_a_template": False, "is_a_snapshot": False, "is_control_domain": False, "power_state": "Running"}
        self.put("VM", ref, **(plain | fields))

    def _fill(self) -> None:
        self.put("pool", "pool", master="host", default_SR="sr")
        self.tables["pool"]["pool"]["name_label"] = ""
        self.put("host", "host", address="10.0.0.1", software_version={"product_version": "8.3.0"})
        self.put("SR", "sr", type="ext", physical_size="100", physical_utilisation="40")
        self.put("network", "net", bridge="xenbr0", purpose=["nbd"])
        self.put("VDI", "disk", SR="sr", virtual_size=str(8 * MIB), type="user", snapshot_of="OpaqueRef:NULL")
        self.put("VDI", "iso", SR="sr", virtual_size="512", type="user")
        self.put("VBD", "vbd-10", VDI="disk", type="Disk", userdevice="10", bootable=True, mode="RO")
        self.put("VBD", "vbd-2", VDI="disk", type="Disk", userdevice="2")
        self.put("VBD", "cd", VDI="iso", type="CD", userdevice="3")
        self.put("VIF", "vif", network="net", device="0", MAC="aa:bb")
        self.vm("web", VBDs=["vbd-10", "vbd-2", "cd"], VIFs=["vif"], tags=["b", "a"])
        self.vm("template", is_a_template=True)
        self.vm("snapshot", is_a_snapshot=True, is_a_template=True)
        self.vm("dom0", is_control_domain=True)
        self.events.clear()

    def _reader(self, kind: str) -> Callable[[str], dict[str, Any]]:
        def read(_session: str) -> dict[str, Any]:
            answer = dict(self.tables[kind])
            self.during.pop(kind, lambda: None)()
            return answer

        return read

    def _record(self, kind: str, ref: str) -> dict[str, Any]:
        if ref not in self.tables[kind]:
            raise Refusal("HANDLE_INVALID", kind, ref)
        return self.tables[kind][ref]

    def _answer(self, _session: str, _classes: list[str], token: str, _wait: float) -> dict[str, Any]:
        assert token == "10,0"
        counts = {kind.lower(): str(len(rows)) for kind, rows in self.tables.items()}
        if self.extra_counts:
            counts["vm"] = str(len(self.tables["VM"]) + self.extra_counts.pop(0))
        return {"events": list(self.events), "token": "11,0", "valid_ref_counts": counts}


def test_an_inventory_holds_vms_with_their_disks_and_cards_and_nothing_else() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        Rows(pool)
        inventory = inventory_of(read_tables(calls))
    assert [each.name for each in inventory.vms] == ["web"]
    web = inventory.find_vm("web")
    assert [each.position for each in web.disks] == ["2", "10"]
    assert web.disks[1].read_only
    assert web.tags == ("a", "b")
    assert web.nics[0].network is not None
    assert web.nics[0].network.nbd
    assert web.provisioned_bytes == 16 * MIB
    assert inventory.pool.name == "host", "a pool without a label is named after its master"
    assert inventory.hosts[0].version == "8.3.0"
    assert inventory.srs[0].free_bytes == 60


def test_what_happens_while_the_tables_are_read_is_in_the_result() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        rows = Rows(pool)
        # All of it after the class was read, so that only the events can tell.
        rows.during["VM"] = lambda: rows.vm("late")
        rows.during["VIF"] = lambda: rows.remove("VM", "web")
        rows.during["VDI"] = lambda: rows.put("network", "net", bridge="xenbr9", purpose=[])
        inventory = inventory_of(read_tables(calls))
    assert [each.name for each in inventory.vms] == ["late"]
    assert inventory.networks[0].bridge == "xenbr9"


def test_counts_that_disagree_cause_another_look_and_then_the_tables_are_taken_as_they_are() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        rows = Rows(pool)
        rows.extra_counts = [1]
        assert len(read_tables(calls)["VM"]) == 4
        assert pool.names().count("event.inject") == 2
        rows.extra_counts = [1, 1, 1]
        assert len(read_tables(calls)["VM"]) == 4


def test_one_vm_read_by_itself_is_as_in_the_inventory() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        Rows(pool)
        assert vm_at(calls, "web") == inventory_of(read_tables(calls)).find_vm("web")
        with pytest.raises(ObjectGone):
            vm_at(calls, "gone")


def test_a_disk_is_found_with_what_it_was_taken_of_or_is_none() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        rows = Rows(pool)
        rows.put("VDI", "snap", SR="sr", virtual_size="512", type="user", is_a_snapshot=True, snapshot_of="disk")
        disk = disk_at(calls, DiskUuid("snap"))
        assert disk is not None
        assert (disk.snapshot_of, disk.is_snapshot, disk.sr) == ("disk", True, "sr")
        assert disk_at(calls, DiskUuid("gone")) is None
