"""Change tracking as clients see it: what changed, what stays when the data goes, and every refusal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.core import BLOCK_BYTES, MIB
from holdfast.formats.cbt import decode_bitmap
from holdfast.lab import RunningLab
from tests.unit.lab.talk import first_disk, new_disk, refusal, vm_named


@pytest.fixture
def disk(api: Any) -> Iterator[str]:
    """A tracked disk that is gone afterwards, with its snapshots."""
    made = new_disk(api, 8 * MIB)
    api.VDI.enable_cbt(made)
    yield made
    for each in [*api.VDI.get_snapshots(made), made]:
        api.VDI.destroy(each)


def _write(lab: RunningLab, api: Any, disk: str, offset: int, length: int = 10) -> None:
    lab.pool.disks.write(api.VDI.get_uuid(disk), offset, b"w" * length)


def _changed(api: Any, source: str, target: str) -> list[tuple[int, int]]:
    extents = decode_bitmap(api.VDI.list_changed_blocks(source, target), size_bytes=8 * MIB)
    return [(extent.offset_bytes // BLOCK_BYTES, extent.length_bytes // BLOCK_BYTES) for extent in extents]


def test_what_was_written_between_two_snapshots_is_told_in_64_kib(lab: RunningLab, api: Any, disk: str) -> None:
    one = api.VDI.snapshot(disk)
    _write(lab, api, disk, 3 * BLOCK_BYTES - 5)
    _write(lab, api, disk, 100 * BLOCK_BYTES)
    two = api.VDI.snapshot(disk)
    _write(lab, api, disk, 0)
    assert _changed(api, one, two) == [(2, 2), (100, 1)]
    assert _changed(api, one, disk) == [(0, 1), (2, 2), (100, 1)]


def test_the_log_outlives_the_data(lab: RunningLab, api: Any, disk: str) -> None:
    one = api.VDI.snapshot(disk)
    _write(lab, api, disk, 0)
    two = api.VDI.snapshot(disk)
    api.VDI.data_destroy(one)
    api.VDI.data_destroy(one)
    record = api.VDI.get_record(one)
    assert (record["type"], record["cbt_enabled"], record["VBDs"]) == ("cbt_metadata", True, [])
    assert _changed(api, one, two) == [(0, 1)]
    for call in (
        lambda: api.VDI.clone(one),
        lambda: api.VDI.snapshot(one),
        lambda: api.VDI.resize(one, str(16 * MIB)),
        lambda: api.VDI.get_nbd_info(one),
    ):
        assert refusal(call) == ["VDI_INCOMPATIBLE_TYPE", one, "CBT metadata"]


def test_a_destroyed_snapshot_in_the_middle_loses_no_change(lab: RunningLab, api: Any, disk: str) -> None:
    one = api.VDI.snapshot(disk)
    _write(lab, api, disk, 0)
    middle = api.VDI.snapshot(disk)
    _write(lab, api, disk, 5 * BLOCK_BYTES)
    last = api.VDI.snapshot(disk)
    api.VDI.destroy(middle)
    assert _changed(api, one, last) == [(0, 1), (5, 1)]


def test_disks_that_no_log_joins_are_refused(lab: RunningLab, api: Any, disk: str) -> None:
    one, other = api.VDI.snapshot(disk), new_disk(api, 8 * MIB)
    api.VDI.enable_cbt(other)
    stranger = api.VDI.snapshot(other)
    for source, target in ((one, stranger), (disk, one), (one, one)):
        assert refusal(lambda source=source, target=target: api.VDI.list_changed_blocks(source, target))[0] == (  # type: ignore[misc]
            "SR_BACKEND_FAILURE_460"
        )
    api.VDI.destroy(stranger)
    api.VDI.destroy(other)


def test_switching_off_breaks_the_chain_and_on_begins_anew(lab: RunningLab, api: Any, disk: str) -> None:
    one = api.VDI.snapshot(disk)
    api.VDI.disable_cbt(disk)
    api.VDI.disable_cbt(disk)
    assert api.VDI.get_cbt_enabled(disk) is False
    api.VDI.enable_cbt(disk)
    two = api.VDI.snapshot(disk)
    assert refusal(lambda: api.VDI.list_changed_blocks(one, two))[0] == "SR_BACKEND_FAILURE_460"


def test_refusals_name_what_is_wrong(api: Any, disk: str) -> None:
    snapshot = api.VDI.snapshot(disk)
    untracked = new_disk(api, 8 * MIB)
    plain = api.VDI.snapshot(untracked)
    told = f"VDI is a snapshot: {snapshot}"
    assert refusal(lambda: api.VDI.enable_cbt(snapshot)) == ["OPERATION_NOT_ALLOWED", told]
    assert refusal(lambda: api.VDI.data_destroy(disk)) == ["OPERATION_NOT_ALLOWED", f"VDI is not a snapshot: {disk}"]
    assert refusal(lambda: api.VDI.data_destroy(plain)) == ["VDI_NO_CBT_METADATA", plain]
    assert refusal(lambda: api.VDI.set_on_boot(disk, "reset")) == ["VDI_CBT_ENABLED", disk]
    api.VDI.destroy(plain)
    api.VDI.destroy(untracked)


def test_a_live_disk_of_a_running_vm_cannot_be_compared(api: Any) -> None:
    disk = first_disk(api, vm_named(api, "alpha"))
    snapshot = api.VDI.snapshot(disk)
    wanted = ["VDI_IN_USE", disk, "list_changed_blocks"]
    assert refusal(lambda: api.VDI.list_changed_blocks(snapshot, disk)) == wanted
    api.VDI.destroy(snapshot)


@pytest.mark.slow(reason="data_destroy waits half a second for the disk to be free")
def test_data_is_not_destroyed_while_a_vbd_points_at_it(api: Any) -> None:
    vm = vm_named(api, "alpha")
    snapshot = api.VM.snapshot(vm, "holds on")
    frozen = first_disk(api, snapshot)
    assert refusal(lambda: api.VDI.data_destroy(frozen)) == ["VDI_IN_USE", frozen, "data_destroy"]
    assert api.VDI.get_type(frozen) == "user"
    api.VM.destroy(snapshot)
    api.VDI.data_destroy(frozen)
    api.VDI.destroy(frozen)


def test_data_destroy_waits_for_a_vbd_that_is_about_to_go(api: Any, lab: RunningLab) -> None:
    vm = vm_named(api, "alpha")
    snapshot = api.VM.snapshot(vm, "goes soon")
    frozen = first_disk(api, snapshot)
    destroying = threading.Thread(target=lambda: lab.pool.db.destroy("VBD", api_free(lab, frozen)))
    destroying.start()
    api.VDI.data_destroy(frozen)
    destroying.join(10)
    assert api.VDI.get_type(frozen) == "cbt_metadata"
    api.VM.destroy(snapshot)
    api.VDI.destroy(frozen)


def api_free(lab: RunningLab, disk: str) -> str:
    """Return the only VBD of a disk, once the disk is being emptied."""
    with lab.pool.db.lock:
        while lab.pool.db.get("VDI", disk, "type") != "cbt_metadata":
            lab.pool.db.changed.wait(1)
        return lab.pool.db.texts("VDI", disk, "VBDs")[0]


def test_nbd_is_offered_where_a_network_is_meant_for_it(lab: RunningLab, session: Any, api: Any, disk: str) -> None:
    (info,) = api.VDI.get_nbd_info(disk)
    assert info["exportname"] == f"/{api.VDI.get_uuid(disk)}?session_id={session._session}"
    assert (info["address"], info["port"]) == ("127.0.0.1", str(lab.nbd_address[1]))
    assert (info["cert"], info["subject"]) == (lab.certificate_pem, "lab-host-1")
    network = next(ref for ref in api.network.get_all() if api.network.get_purpose(ref))
    assert refusal(lambda: api.network.add_purpose(network, "insecure_nbd")) == [
        "NETWORK_INCOMPATIBLE_PURPOSES",
        "insecure_nbd",
        "nbd",
    ]
    api.network.remove_purpose(network, "nbd")
    assert api.VDI.get_nbd_info(disk) == []
    api.network.add_purpose(network, "nbd")
