"""``event.from``: nothing is lost, nothing is told twice, a logout wakes who waits."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.support.lab import logged_in
from tests.unit.lab.talk import first_disk, json_call, new_disk, refusal, vm_named, wait_until


def _from(session: Any, classes: list[str], token: str, timeout_s: float = 5.0) -> dict[str, Any]:
    answer: dict[str, Any] = getattr(session.xenapi.event, "from")(classes, token, timeout_s)
    return answer


def _told(answer: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(event["class"], event["operation"], event["ref"]) for event in answer["events"]}


def test_an_empty_token_brings_everything_as_new(session: Any, api: Any) -> None:
    answer = _from(session, ["VM"], "")
    assert _told(answer) == {("vm", "add", ref) for ref in api.VM.get_all()}
    assert all(event["snapshot"]["uuid"] for event in answer["events"])
    assert answer["valid_ref_counts"]["vm"] == len(api.VM.get_all())


def test_many_changes_are_one_event_with_the_newest_record(session: Any, api: Any) -> None:
    vm = vm_named(api, "alpha")
    token = _from(session, ["vm"], "")["token"]
    for text in ("one", "two", "three"):
        api.VM.set_name_description(vm, text)
    answer = _from(session, ["vm"], token)
    assert _told(answer) == {("vm", "mod", vm)}
    assert answer["events"][0]["snapshot"]["name_description"] == "three"


def test_what_came_and_went_between_two_calls_is_not_mentioned(session: Any, api: Any) -> None:
    token = _from(session, ["vdi"], "")["token"]
    api.VDI.destroy(new_disk(api, 4 << 20))
    assert _from(session, ["vdi"], token, 0.05)["events"] == []


def test_a_deletion_is_told_without_a_record(session: Any, api: Any) -> None:
    disk = new_disk(api, 4 << 20)
    token = _from(session, ["vdi"], "")["token"]
    api.VDI.destroy(disk)
    answer = _from(session, ["vdi"], token)
    assert _told(answer) == {("vdi", "del", disk)}
    assert "snapshot" not in answer["events"][0]


def test_with_nothing_new_the_call_ends_after_its_time_with_the_same_token(session: Any) -> None:
    token = _from(session, ["secret", "vm"], "")["token"]
    answer = _from(session, ["secret", "vm"], token, 0.05)
    assert (answer["events"], answer["token"]) == ([], token)


def test_single_objects_can_be_watched(session: Any, api: Any) -> None:
    alpha, beta = vm_named(api, "alpha"), vm_named(api, "beta")
    token = _from(session, [f"vm/{alpha}"], "")["token"]
    api.VM.set_name_description(beta, "another")
    assert _from(session, [f"vm/{alpha}"], token, 0.05)["events"] == []
    api.VM.set_name_description(alpha, "this")
    assert _told(_from(session, [f"vm/{alpha}"], token)) == {("vm", "mod", alpha)}


def test_an_injected_event_closes_the_gap_between_listing_and_listening(session: Any, api: Any) -> None:
    pool = api.pool.get_all()[0]
    token = api.event.inject("pool", pool)
    disk = first_disk(api, vm_named(api, "alpha"))
    api.VDI.set_name_description(disk, "changed after the token")
    assert {("pool", "mod", pool), ("vdi", "mod", disk)} <= _told(_from(session, ["*"], token))


def test_a_waiting_call_is_answered_when_something_happens(lab: RunningLab, session: Any, api: Any) -> None:
    vm = vm_named(api, "alpha")
    token = _from(session, ["vm"], "")["token"]
    got: list[dict[str, Any]] = []
    with logged_in(lab) as other:
        waiting = threading.Thread(target=lambda: got.append(_from(other, ["vm"], token, 20.0)))
        waiting.start()
        api.VM.add_to_other_config(vm, "woken", "yes")
        waiting.join(20)
        api.VM.remove_from_other_config(vm, "woken")
    assert _told(got[0]) == {("vm", "mod", vm)}


def test_a_logout_wakes_a_waiting_call(lab: RunningLab) -> None:
    got: list[dict[str, Any]] = []
    with logged_in(lab) as other:
        ref = other._session
        token = _from(other, ["secret"], "", 0.01)["token"]
        wait = ("event.from", ref, ["secret"], token, 20.0)
        waiting = threading.Thread(target=lambda: got.append(json_call(lab, *wait)))
        waiting.start()
        wait_until(lab, lambda: lab.connection_count > 1)
        lab.pool.sessions.close(ref)
        waiting.join(20)
    assert got[0]["error"]["data"] == [ref]
    assert got[0]["error"]["message"] == "SESSION_INVALID"


@pytest.mark.parametrize("token", ["garbage", "1", "1,x", "0000000000000000000x,0"])
def test_a_token_that_is_none_is_refused(session: Any, token: str) -> None:
    assert refusal(lambda: _from(session, ["vm"], token)) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", token]


def test_a_message_is_told_like_an_object(session: Any, api: Any) -> None:
    token = _from(session, ["*"], "")["token"]
    message = api.message.create("NOTE", "3", "VM", api.VM.get_uuid(vm_named(api, "beta")), "x")
    answer = _from(session, ["message"], token)
    assert ("message", "add", message) in _told(answer)
    api.message.destroy(message)
    assert _told(_from(session, ["message"], answer["token"])) == {("message", "del", message)}


def test_the_old_calls_need_a_registration_and_tell_what_came_after_it(lab: RunningLab) -> None:
    with logged_in(lab) as session:
        api, ref = session.xenapi, session._session
        refused = refusal(lambda: api.event.next())
        assert refused[0] == "SESSION_NOT_REGISTERED"
        assert ref not in refused, "the reference is not repeated, only a hash of it"
        api.event.register(["VM"])
        vm = vm_named(api, "alpha")
        before = int(api.event.get_current_id())
        api.VM.set_name_description(vm, "for the old calls")
        told = api.event.next()
        assert {(event["class"], event["operation"], event["ref"]) for event in told} == {("vm", "mod", vm)}
        assert int(told[0]["id"]) >= before


def test_a_waiting_old_call_ends_with_its_session(lab: RunningLab) -> None:
    got: list[dict[str, Any]] = []
    with logged_in(lab) as other:
        ref = other._session
        other.xenapi.event.register(["secret"])
        waiting = threading.Thread(target=lambda: got.append(json_call(lab, "event.next", ref)))
        waiting.start()
        wait_until(lab, lambda: lab.connection_count > 1)
        lab.pool.sessions.close(ref)
        waiting.join(20)
    assert got[0]["error"]["message"] in ("SESSION_INVALID", "SESSION_NOT_REGISTERED")


def test_a_class_is_injected_as_the_datamodel_spells_it(api: Any) -> None:
    vm = vm_named(api, "alpha")
    assert api.event.inject("VM", vm)
    assert refusal(lambda: api.event.inject("nope", vm))[0] in ("INTERNAL_ERROR", "HANDLE_INVALID")
    assert refusal(lambda: api.event.inject("VM", "OpaqueRef:nope")) == ["HANDLE_INVALID", "VM", "OpaqueRef:nope"]
