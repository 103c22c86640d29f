"""Snapshots say what they lost, and change tracking says why it is off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.model import DiskUuid, VmUuid
from holdfast.xapi.calls import Calls
from holdfast.xapi.snapshots import enable_cbt, find_snapshots
from tests.unit.xapi.fake_pool import FakePool, Refusal, fake_pool, logged_in

CBT_OPERATIONS = ["vdi_enable_cbt", "vdi_list_changed_blocks", "vdi_data_destroy"]


class Rows:
    """A few records, all in one table, their references equal to their uuids."""

    def __init__(self, pool: FakePool) -> None:
        self.pool = pool
        self.rows: dict[str, dict[str, Any]] = {}
        for kind in ("VM", "VDI", "VBD", "SR"):
            pool.methods[f"{kind}.get_by_uuid"] = lambda _session, uuid: self.record(uuid)["uuid"]
            pool.methods[f"{kind}.get_record"] = lambda _session, ref: self.record(ref)
        pool.methods["VM.get_by_name_label"] = self._named
        pool.methods["Async.VDI.enable_cbt"] = lambda *_: "OpaqueRef:task"
        self.add("sr", type="ext", physical_size="1", physical_utilisation="0", allowed_operations=CBT_OPERATIONS)
        self.add("disk", SR="sr", type="user", cbt_enabled=False)

    def add(self, ref: str, **fields: Any) -> None:
        self.rows[ref] = {"uuid": ref, "name_label": ref, **fields}

    def record(self, ref: str) -> dict[str, Any]:
        if ref not in self.rows:
            raise Refusal("HANDLE_INVALID", "x", ref)
        return self.rows[ref]

    def _named(self, _session: str, label: str) -> list[str]:
        return [ref for ref, row in self.rows.items() if row["name_label"] == label]

    def snapshot(self, ref: str, *, of: str, taken: str = "20261120T08:00:00Z", **fields: Any) -> None:
        plain = {"is_a_snapshot": True, "snapshot_of": of, "snapshot_time": taken, "VBDs": [], "name_label": "ours"}
        self.add(ref, **(plain | fields))


Made = tuple[Rows, Calls]


@pytest.fixture
def made() -> Iterator[Made]:
    with fake_pool() as pool, logged_in(pool) as calls:
        yield Rows(pool), calls


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("type", "metadata", "type metadata"), ("on_boot", "reset", "reset at every boot")],
)
def test_a_disk_that_cannot_track_changes_is_not_asked_to(made: Made, field: str, value: str, words: str) -> None:
    rows, calls = made
    rows.rows["disk"][field] = value
    state = enable_cbt(calls, DiskUuid("disk"))
    assert not state.enabled
    assert words in state.reason
    assert "Async.VDI.enable_cbt" not in rows.pool.names()


def test_storage_without_change_tracking_is_named(made: Made) -> None:
    rows, calls = made
    rows.rows["sr"]["allowed_operations"] = ["vdi_create"]
    assert enable_cbt(calls, DiskUuid("disk")).reason == "the SR 'sr' (ext) does not support changed block tracking"


@pytest.mark.parametrize("code", ["FEATURE_RESTRICTED", "SR_OPERATION_NOT_SUPPORTED", "SR_BACKEND_FAILURE_457"])
def test_a_refusal_to_track_changes_is_a_reason_and_no_error(made: Made, code: str) -> None:
    rows, calls = made
    rows.pool.task_ends(status="failure", error=(code, "x"))
    state = enable_cbt(calls, DiskUuid("disk"))
    assert (state.enabled, state.switched_on) == (False, False)
    assert code in state.reason


def test_snapshots_are_found_by_name_of_the_right_vm_and_oldest_first(made: Made) -> None:
    rows, calls = made
    rows.add("web")
    rows.snapshot("late", of="web", taken="20261120T09:00:00Z")
    rows.snapshot("early", of="web")
    rows.snapshot("of-another", of="db")
    rows.add("a-vm-of-that-name", is_a_snapshot=False)
    rows.rows["a-vm-of-that-name"]["name_label"] = "ours"
    found = find_snapshots(calls, VmUuid("web"), name_label="ours")
    assert [each.vm for each in found] == ["early", "late"]


def test_a_snapshot_tells_what_it_lost(made: Made) -> None:
    rows, calls = made
    rows.add("web")
    rows.rows["disk"]["cbt_enabled"] = True
    rows.snapshot("snap", of="web", VBDs=["vbd-1", "vbd-2", "cd", "gone"], VTPMs=["tpm"])
    rows.add("vbd-1", type="Disk", VDI="snap-disk")
    rows.add("vbd-2", type="Disk", VDI="orphan")
    rows.add("cd", type="CD", VDI="iso")
    rows.add("snap-disk", snapshot_of="disk", cbt_enabled=False)
    rows.add("orphan", snapshot_of="OpaqueRef:NULL")
    (snapshot,) = find_snapshots(calls, VmUuid("web"), name_label="ours")
    assert snapshot.disks == {"disk": "snap-disk"}
    tracking, orphan, tpm = sorted(snapshot.warnings)
    assert "Change tracking of disk disk was lost" in tracking
    assert "TPM" in orphan + tpm
    assert any("orphan belongs to no disk" in each for each in snapshot.warnings)
