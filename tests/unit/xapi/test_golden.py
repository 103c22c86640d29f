"""What a real XAPI answered is understood: records, task results and errors, as they were recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.model import Network, SrUuid
from holdfast.xapi import DiskIoError, PoolFailure
from holdfast.xapi.catalogue import failure_from
from holdfast.xapi.records import disk_from, network_from, nic_from, sr_from, vm_disk_from, vm_from
from holdfast.xapi.wire import parse_task_result
from tests.support.golden import golden_path


def _steps() -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield every recorded step with what came back."""
    for file in sorted(golden_path("replay").glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            recorded = json.loads(line)
            if "step" in recorded:
                yield recorded["step"], recorded["got"]


def _records(method: str) -> list[dict[str, Any]]:
    reduced = ("pick", "shape", "count", "only")
    return [
        got["result"]
        for step, got in _steps()
        if step.get("method") == method
        and isinstance(got.get("result"), dict)
        and not any(key in step for key in reduced)
    ]


def test_recorded_disks_are_read() -> None:
    disks = [disk_from(record, sr=SrUuid("sr"), snapshot_of=None) for record in _records("VDI.get_record")]
    assert len(disks) > 5
    assert {disk.kind for disk in disks} >= {"user"}
    assert all(disk.size_bytes >= 0 and disk.uuid for disk in disks)


def test_recorded_vms_with_their_places_and_cards_are_read() -> None:
    disk = disk_from(_records("VDI.get_record")[0], sr=SrUuid("sr"), snapshot_of=None)
    places = [vm_disk_from(record, disk) for record in _records("VBD.get_record")]
    cards = [nic_from(record, network=None) for record in _records("VIF.get_record")]
    assert all(card.mac for card in cards)
    vms = [vm_from(record, disks=places, nics=cards) for record in _records("VM.get_record")]
    assert vms
    assert all(vm.vcpus > 0 and vm.memory_bytes > 0 for vm in vms)


def test_a_recorded_sr_and_network_are_read() -> None:
    srs = [sr_from(record) for record in _records("SR.get_record")]
    assert any(sr.supports_cbt for sr in srs)
    networks: list[Network] = [network_from(record) for record in _records("network.get_record")]
    assert networks


def test_every_recorded_task_result_is_parsed() -> None:
    ended = [
        got["result"] for step, got in _steps() if step.get("kind") == "task" and isinstance(got.get("result"), dict)
    ]
    results = [task["result"] for task in ended if task.get("status") == "success"]
    assert len(results) > 50
    for result in results:
        parsed = parse_task_result(result)
        assert isinstance(parsed, str | list)
        assert "<value>" not in str(parsed)


def test_every_recorded_failure_becomes_an_error_that_keeps_its_code() -> None:
    ended = [
        got["result"] for step, got in _steps() if step.get("kind") == "task" and isinstance(got.get("result"), dict)
    ]
    failures = [task["error_info"] for task in ended if task.get("status") == "failure"]
    failures += [got["error"] for _, got in _steps() if isinstance(got.get("error"), list) and got["error"]]
    assert len(failures) > 100
    for info in failures:
        params = [str(each) for each in info]
        failure = failure_from(params, operation="recorded")
        if params[1:] and params[1].startswith("http/"):
            assert failure.xapi_code in " ".join(params), "what XAPI has wrapped is unwrapped"
            continue
        assert failure.xapi_code == params[0]
        assert params[0] in str(failure)


@pytest.mark.parametrize("code", ["VDI_IO_ERROR"])
def test_what_a_cut_transfer_really_answers_is_known(code: str) -> None:
    recorded = [
        failure_from([str(each) for each in got["result"]["error_info"]], operation="transfer")
        for step, got in _steps()
        if step.get("kind") == "task" and isinstance(got.get("result"), dict) and code in got["result"]["error_info"]
    ]
    assert recorded
    assert all(isinstance(failure, DiskIoError) and isinstance(failure, PoolFailure) for failure in recorded)
