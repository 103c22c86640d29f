"""Faults of hosts: not ready, elsewhere, restarted, crashed, with another certificate or clock."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from holdfast.core import MIB, parse_time
from holdfast.lab import LabRefused, RunningLab
from tests.support.lab import PASSWORD, logged_in, tiny_lab
from tests.unit.lab.talk import fetch, first_disk, json_call, new_disk, refusal, vm_named
from tests.unit.lab.test_nbd_service import _reading


@pytest.fixture(scope="module")
def pair() -> Iterator[RunningLab]:
    """A pool of two hosts without VMs."""
    with tiny_lab(scenario="empty", hosts=2) as running:
        yield running


def _login(lab: RunningLab) -> str:
    return str(json_call(lab, "session.login_with_password", "root", PASSWORD)["result"])


def test_a_login_can_be_sent_elsewhere(lab: RunningLab) -> None:
    lab.control.arm_fault("host-is-slave", address="192.0.2.7")
    error = json_call(lab, "session.login_with_password", "root", PASSWORD)["error"]
    assert (error["message"], error["data"]) == ("HOST_IS_SLAVE", ["192.0.2.7"])
    assert _login(lab)


@pytest.mark.parametrize(
    ("name", "code"), [("host-still-booting", "HOST_STILL_BOOTING"), ("host-in-emergency", "HOST_IN_EMERGENCY_MODE")]
)
def test_a_host_can_be_unready_for_every_call(lab: RunningLab, api: Any, name: str, code: str) -> None:
    lab.control.arm_fault(name, count=2)
    assert refusal(lambda: api.VM.get_all()) == [code]
    answer = fetch(lab, "POST", "/jsonrpc", b'{"jsonrpc":"2.0","method":"session.logout","params":[],"id":7}')
    assert answer.body == f'{{"jsonrpc":"2.0","error":["{code}"],"id":0}}'.encode()
    assert api.VM.get_all()


def test_the_master_can_fail_to_reach_a_host(lab: RunningLab, api: Any) -> None:
    lab.control.arm_fault("host-unreachable", method="VM.snapshot")
    told = refusal(lambda: api.VM.snapshot(vm_named(api, "alpha"), "x"))
    assert told == ["CANNOT_CONTACT_HOST", lab.pool.master_ref]


def test_a_restart_of_the_toolstack_forgets_sessions_and_tasks(lab: RunningLab) -> None:
    ref = _login(lab)
    task = json_call(lab, "task.create", ref, "pending", "")["result"]
    lab.control.arm_fault("toolstack-restarts")
    assert json_call(lab, "VM.get_all", ref)["error"]["message"] == "SESSION_INVALID"
    fresh = _login(lab)
    assert json_call(lab, "task.get_status", fresh, task)["error"]["message"] == "HANDLE_INVALID"
    lab.control.restart_toolstack()
    assert json_call(lab, "VM.get_all", fresh)["error"]["message"] == "SESSION_INVALID"


def test_after_a_restart_events_go_on_but_nobody_tells_that_tasks_are_gone(lab: RunningLab) -> None:
    ref = _login(lab)
    task = json_call(lab, "task.create", ref, "pending", "")["result"]
    before = json_call(lab, "event.from", ref, ["task"], "", 0.0)["result"]
    assert task in [event["ref"] for event in before["events"]]
    lab.control.restart_toolstack()
    after = json_call(lab, "event.from", _login(lab), ["task"], before["token"], 0.0)["result"]
    assert after["events"] == []
    assert after["valid_ref_counts"]["task"] == before["valid_ref_counts"]["task"] - 1


def test_while_the_toolstack_restarts_connections_end_without_an_answer(lab: RunningLab) -> None:
    with pytest.raises(LabRefused):
        lab.control.restart_toolstack(silent_s=-1.0)
    lab.control.restart_toolstack(silent_s=30.0)
    with pytest.raises((ConnectionError, OSError)):
        _login(lab)
    lab.control.advance(30.0)
    assert _login(lab)


def _json_call_at(url: str, method: str, *parameters: Any) -> dict[str, Any]:
    @contextlib.contextmanager
    def elsewhere() -> Iterator[Any]:
        yield type("Elsewhere", (), {"plain_url": url})

    with elsewhere() as lab:
        return json_call(lab, method, *parameters)


def test_another_host_can_become_master_and_the_old_one_names_it(pair: RunningLab) -> None:
    ref = _login(pair)
    old, old_url = pair.pool.master_ref, pair.plain_url
    pair.control.arm_fault("master-moves")
    new = pair.pool.master_ref
    assert new != old
    error = _json_call_at(old_url, "session.login_with_password", "root", PASSWORD)["error"]
    address = pair.pool.db.text("host", new, "address")
    assert (error["message"], error["data"]) == ("HOST_IS_SLAVE", [address])
    moved = f"http://{address}:{urlsplit(old_url).port}"
    assert pair.plain_url == moved
    assert _json_call_at(moved, "VM.get_all", ref)["error"]["message"] == "SESSION_INVALID"
    assert "result" in _json_call_at(moved, "session.login_with_password", "root", PASSWORD)
    pair.control.arm_fault("master-moves", host=pair.pool.db.text("host", old, "uuid"))
    assert _login(pair)


def test_a_pool_of_one_host_has_nobody_to_become_master(lab: RunningLab) -> None:
    with pytest.raises(LabRefused, match="two hosts"):
        lab.control.arm_fault("master-moves")
    with pytest.raises(LabRefused, match="a host of this pool, not 'nobody'"):
        lab.control.arm_fault("host-crashes", host="nobody")


def test_a_crashed_host_halts_its_vms_and_loses_what_they_tracked() -> None:
    with tiny_lab() as lab:
        with logged_in(lab) as session:
            api = session.xenapi
            vm = vm_named(api, "alpha")
            disk = first_disk(api, vm)
            uuid = api.VDI.get_uuid(disk)
            assert (api.VM.get_power_state(vm), api.VDI.get_cbt_enabled(disk)) == ("Running", True)
            snapshot = api.VDI.snapshot(disk)
            with _reading(lab, session, snapshot) as client:
                lab.control.arm_fault("host-crashes")
                with pytest.raises(OSError):
                    client.read(0, 512)
        with logged_in(lab) as session:
            api = session.xenapi
            assert (api.VM.get_power_state(vm), api.VM.get_resident_on(vm)) == ("Halted", "OpaqueRef:NULL")
            assert lab.pool.disks.read(uuid, 10 * MIB + 4096, 4) == b"lab "
            assert api.VDI.get_cbt_enabled(api.VDI.snapshot(disk)), "nobody has looked at the log yet"
            api.VM.start(vm, False, False)
            assert not api.VDI.get_cbt_enabled(disk)
            told = [m["name"] for m in api.message.get_all_records().values() if m["obj_uuid"] == uuid]
            assert told == ["VDI_CBT_METADATA_INCONSISTENT"]


def test_the_pools_certificate_can_change_over_night(lab: RunningLab, api: Any) -> None:
    before = lab.fingerprint
    lab.control.arm_fault("certificate-changes")
    host, port = lab.url.removeprefix("https://").split(":")
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))
    assert hashlib.sha256(shown).hexdigest() == lab.fingerprint != before
    assert api.host.get_server_certificate(lab.pool.master_ref) == lab.certificate_pem
    disk = new_disk(api, MIB)
    assert api.VDI.get_nbd_info(disk)[0]["cert"] == lab.certificate_pem
    api.VDI.destroy(disk)


@pytest.mark.parametrize("direction", ["ahead", "behind"])
def test_the_pools_clock_can_be_wrong_until_cleared(lab: RunningLab, api: Any, direction: str) -> None:
    def told() -> Any:
        return parse_time(_dashed(api.host.get_servertime(lab.pool.master_ref).value))

    right = told()
    lab.control.arm_fault("clock-skewed", seconds=86_400, direction=direction)
    skew = timedelta(days=1 if direction == "ahead" else -1)
    assert abs(told() - right - skew) < timedelta(hours=1)
    lab.control.clear_faults()
    assert abs(told() - right) < timedelta(hours=1)


def _dashed(text: str) -> str:
    """Return a time of the API as the rest of the world spells it."""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"
