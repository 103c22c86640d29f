"""Xen Orchestra's own client against the lab: logins, the cache kept through events, tasks, transfers, lost sessions.

It is stricter than a person would be: it believes a record only when an event brought it, and a task only when the
event of its end did.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import XenAPI

from holdfast.lab import RunningLab
from tests.judges.xo import PATIENT, Peer, PeerFailed, patient_lab, peer_or_skip
from tests.support.lab import PASSWORD, logged_in
from tests.unit.lab.talk import wait_until

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="starts a JavaScript program and a lab on real sockets")]

Records = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with patient_lab() as running:
        yield running


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with peer_or_skip("client.mjs") as running:
        yield running


@pytest.fixture
def client(lab: RunningLab, peer: Peer, request: pytest.FixtureRequest) -> Iterator[str]:
    """Connect a client over plain JSON-RPC and yield its name."""
    with _connected(peer, request.node.name, lab.plain_url) as name:
        yield name


@pytest.fixture
def api(lab: RunningLab) -> Iterator[Any]:
    """The vendor's Python client, which is the other party in these tests."""
    with logged_in(lab) as session:
        yield session.xenapi


@contextlib.contextmanager
def _connected(peer: Peer, name: str, url: str, **options: Any) -> Iterator[str]:
    options = {"url": url, "auth": {"user": "root", "password": PASSWORD}, **options}
    peer.ask("connect", name=name, options=options)
    try:
        yield name
    finally:
        peer.ask("disconnect", name=name)


def _cached(peer: Peer, client: str) -> Records:
    """Return what the client holds when it has seen all events so far."""
    peer.ask("barrier", name=client)
    peer.ask("barrier", name=client)  # the first one's own removal of its mark has arrived then
    return cast(Records, peer.ask("objects", name=client))


def _told(peer: Peer, client: str) -> Records:
    """Return what the pool says when asked class by class."""
    calls = peer.ask("call", name=client, method="system.listMethods", args=[])
    found: Records = {}
    for call in (call for call in calls if call.endswith(".get_all_records")):
        try:
            records = peer.ask("call", name=client, method=call, args=[])
        except PeerFailed as refused:
            if refused.code != "MESSAGE_REMOVED":  # the pool still lists what it gave up long ago
                raise
            continue
        if records:
            found[call.partition(".")[0]] = records
    return found


def _settled(records: Records) -> Records:
    """Leave out what changes by watching: the barrier's marks, and the sessions and tasks of those who look."""
    kept = {cls: dict(rows) for cls, rows in records.items() if cls not in ("session", "task")}
    for ref, pool in kept["pool"].items():
        config = {key: value for key, value in pool["other_config"].items() if not key.startswith("xo:barrier:")}
        kept["pool"][ref] = {**pool, "other_config": config}
    return kept


def _differences(cached: Records, told: Records) -> list[str]:
    """Return, a line each, where the cache and the pool disagree."""
    found: list[str] = []
    for cls in sorted(set(cached) | set(told)):
        ours, theirs = cached.get(cls, {}), told.get(cls, {})
        for ref in sorted(set(ours) | set(theirs)):
            if ref not in ours or ref not in theirs:
                found.append(f"{cls} {ref} is only {'cached' if ref in ours else 'in the pool'}")
                continue
            fields = set(ours[ref]) | set(theirs[ref])
            found += [
                f"{cls} {ref} {name}: cached {ours[ref].get(name)!r}, told {theirs[ref].get(name)!r}"
                for name in sorted(fields)
                if ours[ref].get(name) != theirs[ref].get(name)
            ]
    return found


def _wait_for_tools(lab: RunningLab, vm: str) -> None:
    """Return when the guest has told the pool about itself, some seconds after its start."""
    metrics = lab.pool.db.text("VM", vm, "guest_metrics")
    wait_until(lab, lambda: lab.pool.db.flag("VM_guest_metrics", metrics, "PV_drivers_detected"))


def _machine(api: Any, name: str) -> str:
    return str(api.VM.get_by_name_label(name)[0])


def _disk(api: Any, vm: str) -> str:
    """Return the machine's first disk."""
    vbds = [vbd for vbd in api.VM.get_VBDs(vm) if api.VBD.get_type(vbd) == "Disk"]
    vbds.sort(key=api.VBD.get_userdevice)
    return str(api.VBD.get_VDI(vbds[0]))


# -- the cache


@pytest.mark.parametrize("transport", ["json-rpc", "xml-rpc", "auto"])
@pytest.mark.parametrize("wire", ["plain", "tls"])
def test_the_cache_is_complete_after_login(lab: RunningLab, peer: Peer, wire: str, transport: str) -> None:
    url = lab.url if wire == "tls" else lab.plain_url
    with _connected(peer, f"{wire} {transport}", url, transport=transport) as name:
        assert set(_cached(peer, name)) >= {"host", "pool", "network", "PIF", "SR", "PBD", "VM", "VBD", "VDI", "VIF"}
        if transport != "xml-rpc":  # there, numbers and times have other types on the two ways
            assert _differences(_settled(_cached(peer, name)), _settled(_told(peer, name))) == []


def test_the_cache_follows_whatever_others_do(lab: RunningLab, peer: Peer, client: str, api: Any) -> None:
    vm = _machine(api, "beta")
    snapshot = api.VM.snapshot(vm, "followed")
    disk = _disk(api, snapshot)
    copy = api.VDI.copy(disk, api.VDI.get_SR(disk))
    vbd = api.VBD.create(
        {
            "VM": vm,
            "VDI": copy,
            "userdevice": "5",
            "bootable": False,
            "mode": "RW",
            "type": "Disk",
            "unpluggable": True,
            "empty": False,
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }
    )
    api.VM.add_to_other_config(vm, "followed", "yes")
    api.VM.add_tags(vm, "followed")
    api.VM.hard_shutdown(_machine(api, "alpha"))
    during = _cached(peer, client)
    assert _differences(_settled(during), _settled(_told(peer, client))) == []
    assert snapshot in during["VM"] and copy in during["VDI"] and vbd in during["VBD"]
    api.VBD.destroy(vbd)
    api.VDI.destroy(copy)
    for each in api.VM.get_VBDs(snapshot):
        if api.VBD.get_type(each) == "Disk":
            api.VDI.destroy(api.VBD.get_VDI(each))
    api.VM.destroy(snapshot)
    api.VM.remove_from_other_config(vm, "followed")
    api.VM.remove_tags(vm, "followed")
    api.VM.start(_machine(api, "alpha"), False, False)
    _wait_for_tools(lab, _machine(api, "alpha"))
    after = _cached(peer, client)
    assert _differences(_settled(after), _settled(_told(peer, client))) == []
    assert snapshot not in after["VM"] and copy not in after["VDI"] and vbd not in after["VBD"]


def test_a_cached_object_leads_to_its_relatives(peer: Peer, client: str, api: Any) -> None:
    vm = _machine(api, "beta")
    cached = peer.ask("related", name=client, ref=vm, field="$VBDs")
    assert {each["$ref"] for each in cached} == set(api.VM.get_VBDs(vm))
    assert {each["$type"] for each in cached} == {"VBD"}


def test_fields_are_set_and_entries_replaced_through_a_cached_object(peer: Peer, client: str, api: Any) -> None:
    vm = _machine(api, "beta")
    peer.ask("set", name=client, ref=vm, field="name_description", value="told by the cache")
    for value in ("one", "two"):  # the second one replaces a key that is there
        peer.ask("update", name=client, ref=vm, field="other_config", entry="judged", value=value)
    seen = peer.ask("barrier", name=client, ref=vm)
    assert (seen["name_description"], seen["other_config"]["judged"]) == ("told by the cache", "two")
    assert api.VM.get_other_config(vm)["judged"] == "two"
    peer.ask("update", name=client, ref=vm, field="other_config", entry="judged", value=None)
    assert "judged" not in peer.ask("barrier", name=client, ref=vm)["other_config"]


# -- tasks


def test_an_asynchronous_call_returns_its_result_and_leaves_no_task(peer: Peer, client: str, api: Any) -> None:
    made = peer.ask("callAsync", name=client, method="VM.snapshot", args=[_machine(api, "alpha"), "asynchronous"])
    assert api.VM.get_name_label(made) == "asynchronous"
    for vbd in api.VM.get_VBDs(made):
        if api.VBD.get_type(vbd) == "Disk":
            api.VDI.destroy(api.VBD.get_VDI(vbd))
    api.VM.destroy(made)
    assert "Async.VM.snapshot" not in _labels_of_tasks(peer, client)


def test_an_asynchronous_call_that_fails_says_why(peer: Peer, client: str, api: Any) -> None:
    vm = _machine(api, "beta")
    with pytest.raises(PeerFailed) as refused:
        peer.ask("callAsync", name=client, method="VM.start", args=[vm, False, False])
    assert refused.value.code == "VM_BAD_POWER_STATE"
    assert refused.value.params[0] == vm
    assert "Async.VM.start" not in _labels_of_tasks(peer, client)


def test_a_task_that_a_restart_forgot_does_not_leave_its_waiter_hanging(peer: Peer) -> None:
    slow = replace(PATIENT, snapshot_s=1.0)
    with patient_lab(delays=slow) as lab, logged_in(lab) as session, _connected(peer, "waiter", lab.plain_url) as name:
        arguments = [_machine(session.xenapi, "beta"), "unheard of"]
        answer = peer.begin("callAsync", name=name, method="VM.snapshot", args=arguments)
        wait_until(lab, lambda: "Async.VM.snapshot" in _labels_of_tasks(peer, name))
        lab.control.restart_toolstack()
        with pytest.raises(PeerFailed, match="task has been destroyed before completion"):
            peer.answer_of(answer)


def _labels_of_tasks(peer: Peer, client: str) -> set[str]:
    # The client destroys its task without waiting for it: calls made after that one are answered after it.
    peer.ask("barrier", name=client)
    tasks = peer.ask("call", name=client, method="task.get_all_records", args=[])
    return {task["name_label"] for task in tasks.values()}


# -- transfers


@pytest.fixture
def frozen(api: Any) -> Iterator[str]:
    """A snapshot of a running machine's disk: the disk itself is in use and refuses to be exported."""
    snapshot = api.VDI.snapshot(_disk(api, _machine(api, "beta")))
    yield str(snapshot)
    api.VDI.destroy(snapshot)


def test_a_disk_is_downloaded_and_its_task_ends_well(
    lab: RunningLab, peer: Peer, client: str, api: Any, frozen: str, tmp_path: Path
) -> None:
    file = tmp_path / "disk.raw"
    query = {"vdi": frozen, "format": "raw"}
    told = peer.ask("download", name=client, path="/export_raw_vdi", query=query, file=str(file))
    assert told["status"] == 200
    assert hashlib.sha256(file.read_bytes()).hexdigest() == lab.control.sha256(api.VDI.get_uuid(frozen))


@pytest.mark.parametrize("knows_length", [True, False])
def test_a_disk_is_uploaded_with_and_without_a_length(
    lab: RunningLab, peer: Peer, client: str, api: Any, tmp_path: Path, knows_length: bool
) -> None:
    content = b"".join(number.to_bytes(8, "big") * 512 for number in range(1024))
    (tmp_path / "disk.raw").write_bytes(content)
    disk = _new_disk(api, len(content))
    query = {"vdi": disk, "format": "raw"}
    options = {"path": "/import_raw_vdi/", "query": query, "file": str(tmp_path / "disk.raw")}
    peer.ask("upload", name=client, knowsLength=knows_length, **options)
    assert lab.control.sha256(api.VDI.get_uuid(disk)) == hashlib.sha256(content).hexdigest()
    api.VDI.destroy(disk)


def test_a_vhd_goes_round(lab: RunningLab, peer: Peer, client: str, api: Any, frozen: str, tmp_path: Path) -> None:
    file = str(tmp_path / "disk.vhd")
    peer.ask("download", name=client, path="/export_raw_vdi/", query={"vdi": frozen, "format": "vhd"}, file=file)
    copy = _new_disk(api, int(api.VDI.get_virtual_size(frozen)))
    query = {"vdi": copy, "format": "vhd"}
    peer.ask("upload", name=client, path="/import_raw_vdi/", query=query, file=file, knowsLength=True)
    assert lab.control.sha256(api.VDI.get_uuid(copy)) == lab.control.sha256(api.VDI.get_uuid(frozen))
    api.VDI.destroy(copy)


def test_a_disk_in_use_is_refused_with_the_pools_reason(peer: Peer, client: str, api: Any, tmp_path: Path) -> None:
    disk = _disk(api, _machine(api, "beta"))
    query = {"vdi": disk, "format": "vhd"}
    with pytest.raises(PeerFailed) as refused:
        peer.ask("download", name=client, path="/export_raw_vdi/", query=query, file=str(tmp_path / "none"))
    assert refused.value.code == "VDI_IN_USE"


@pytest.mark.parametrize("knows_length", [True, False])
def test_a_whole_machine_goes_round(
    lab: RunningLab, peer: Peer, client: str, api: Any, tmp_path: Path, knows_length: bool
) -> None:
    vm, file = _machine(api, "beta"), str(tmp_path / "machine.xva")
    snapshot = api.VM.snapshot(vm, "exported")
    peer.ask("download", name=client, path="/export/", query={"ref": snapshot, "use_compression": "false"}, file=file)
    sr = api.VDI.get_SR(_disk(api, vm))
    query = {"sr_id": sr}
    answer = peer.ask("upload", name=client, path="/import/", query=query, file=file, knowsLength=knows_length)
    (made,) = answer
    assert _content(lab, api, made) == _content(lab, api, snapshot)
    for each in (made, snapshot):
        for disk in _disks(api, each):
            api.VDI.destroy(disk)
        api.VM.destroy(each)


def test_a_download_that_is_refused_ends_its_task_too(peer: Peer, client: str, tmp_path: Path) -> None:
    query = {"vdi": "OpaqueRef:00000000-0000-0000-0000-000000000000", "format": "raw"}
    with pytest.raises(PeerFailed):
        peer.ask("download", name=client, path="/export_raw_vdi/", query=query, file=str(tmp_path / "none"))


def _new_disk(api: Any, size_bytes: int) -> str:
    sr = next(ref for ref, sr in api.SR.get_all_records().items() if sr["content_type"] != "iso")
    record = {
        "SR": sr,
        "name_label": "judged",
        "name_description": "",
        "virtual_size": str(size_bytes),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "sm_config": {},
        "tags": [],
    }
    return str(api.VDI.create(record))


def _disks(api: Any, vm: str) -> list[str]:
    vbds = [vbd for vbd in api.VM.get_VBDs(vm) if api.VBD.get_type(vbd) == "Disk"]
    return [api.VBD.get_VDI(vbd) for vbd in sorted(vbds, key=api.VBD.get_userdevice)]


def _content(lab: RunningLab, api: Any, vm: str) -> list[str]:
    """Return the hash of each disk, by device."""
    return [lab.control.sha256(api.VDI.get_uuid(disk)) for disk in _disks(api, vm)]


# -- sessions


def test_a_lost_session_is_renewed_and_the_cache_with_it(lab: RunningLab, peer: Peer, client: str) -> None:
    lab.control.restart_toolstack()
    # The client follows events, so it notices by itself. A call made while it logs in again would trip over that.
    wait_until(lab, lambda: len(peer.ask("sessions", name=client)) == 2)
    with logged_in(lab) as session:
        vm = _machine(session.xenapi, "beta")
        session.xenapi.VM.add_tags(vm, "after the restart")
        assert _differences(_settled(_cached(peer, client)), _settled(_told(peer, client))) == []
        assert "after the restart" in _cached(peer, client)["VM"][vm]["tags"]
        session.xenapi.VM.remove_tags(vm, "after the restart")


def test_who_knocks_at_a_member_is_sent_to_the_master(peer: Peer) -> None:
    with patient_lab(hosts=2) as lab, _connected(peer, "visitor", lab.member_urls[0]) as name:
        assert _differences(_settled(_cached(peer, name)), _settled(_told(peer, name))) == []
        assert len(_cached(peer, name)["host"]) == 2


def test_a_call_is_cancelled_and_its_waiter_told(peer: Peer) -> None:
    slow = replace(PATIENT, snapshot_s=1.0)
    with patient_lab(delays=slow) as lab, logged_in(lab) as session, _connected(peer, "waverer", lab.plain_url) as name:
        arguments = [_machine(session.xenapi, "beta"), "not wanted"]
        answer = peer.begin("callAsync", name=name, method="VM.snapshot", args=arguments, cancel="snapshot")
        wait_until(lab, lambda: "Async.VM.snapshot" in _labels_of_tasks(peer, name))
        peer.ask("cancel", name="snapshot")
        with pytest.raises(PeerFailed, match="task canceled"):
            peer.answer_of(answer)
        assert session.xenapi.VM.get_by_name_label("not wanted") == []


def test_a_wrong_password_is_told(lab: RunningLab, peer: Peer) -> None:
    with pytest.raises(PeerFailed) as refused:
        options = {"url": lab.plain_url, "auth": {"user": "root", "password": "wrong"}}
        peer.ask("connect", name="stranger", options=options)
    assert refused.value.code == "SESSION_AUTHENTICATION_FAILED"


def test_logging_out_ends_the_session(lab: RunningLab, peer: Peer, client: str) -> None:
    (session_id,) = peer.ask("sessions", name=client)
    stranger = XenAPI.Session(lab.plain_url)
    stranger._session = session_id
    assert stranger.xenapi.session.get_this_user(session_id)
    peer.ask("disconnect", name=client)
    assert peer.ask("status", name=client) == "disconnected"
