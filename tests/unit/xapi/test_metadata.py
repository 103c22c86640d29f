"""A VM's own description goes out whole and comes in as exactly one VM."""

from __future__ import annotations

import threading

import pytest

from holdfast.core import Cancellation
from holdfast.model import DiskUuid, VmUuid
from holdfast.xapi import MetadataImportFailed, PoolFailure
from holdfast.xapi.metadata import export_metadata, import_metadata
from tests.unit.xapi.fake_pool import FakePool, Transfer, fake_pool, logged_in


def _take(seen: list[str], pool: FakePool, *, result: str) -> None:
    """Let the pool take a description and end its task then, not sooner."""

    def take(transfer: Transfer) -> None:
        transfer.begin()
        seen.append(transfer.path.split("&session_id")[0])
        seen.append(transfer.body().decode())
        taken.set()

    taken = threading.Event()
    pool.transfer = take
    pool.task_ends(result=result)
    end = pool.methods["event.from"]
    pool.methods["event.from"] = lambda *params: taken.wait(10) and end(*params)


def _refs(*refs: str) -> str:
    return "<value><array><data>" + "".join(f"<value>{ref}</value>" for ref in refs) + "</data></array></value>"


def test_a_description_is_exported_without_snapshots_and_judged_by_its_task() -> None:
    queries: list[dict[str, str]] = []

    def export(transfer: Transfer) -> None:
        queries.append(transfer.query)
        transfer.begin()
        transfer.wfile.write(b"tar")

    with fake_pool() as pool, logged_in(pool) as calls:
        pool.transfer = export
        pool.task_ends()
        assert export_metadata(calls, VmUuid("vm")) == b"tar"
        assert (queries[0]["uuid"], queries[0]["export_snapshots"]) == ("vm", "false")
        pool.task_ends(status="failure", error=("VM_BAD_POWER_STATE", "x"))
        with pytest.raises(PoolFailure):
            export_metadata(calls, VmUuid("vm"))


def test_disks_are_mapped_and_a_snapshots_description_becomes_a_vm() -> None:
    seen: list[str] = []
    with fake_pool() as pool, logged_in(pool) as calls:
        _take(seen, pool, result=_refs("OpaqueRef:made"))
        pool.methods["VM.get_record"] = lambda *_: {"is_a_template": True}
        pool.methods["VM.get_uuid"] = lambda *_: "uuid-made"
        pool.methods["VM.set_is_a_template"] = lambda *_: ""
        made = import_metadata(
            calls, b"tar", disk_map={DiskUuid("a"): DiskUuid("b")}, restore=True, cancel=Cancellation()
        )
        assert made == "uuid-made"
        assert ("VM.set_is_a_template", ("OpaqueRef:session", "OpaqueRef:made", False)) in pool.calls
    assert seen == ["/import_metadata?vdi:a=b&restore=true", "tar"]


@pytest.mark.parametrize("refs", [(), ("OpaqueRef:1", "OpaqueRef:2")])
def test_a_description_that_makes_no_vm_or_two_is_a_failure(refs: tuple[str, ...]) -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        _take([], pool, result=_refs(*refs))
        with pytest.raises(MetadataImportFailed, match=f"{len(refs)} VMs"):
            import_metadata(calls, b"tar", disk_map={}, restore=False, cancel=Cancellation())
