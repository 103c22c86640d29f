"""The vendor's Python client against the lab, in breadth: every class, every field, over the wire it speaks.

What a getter tells must be what the record tells, whatever the class: a client reads one or the other.
"""

from __future__ import annotations

import ssl
import xmlrpc.client
from collections.abc import Iterator
from typing import Any

import pytest
import XenAPI

from holdfast.lab import RunningLab
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import discard

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="reads every field of every class, one call each")]

_ALWAYS_THERE = frozenset(
    {"PBD", "PIF", "SM", "SR", "VBD", "VDI", "VIF", "VM", "VM_metrics", "host", "network", "pool"}
)


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with tiny_lab() as running:
        yield running


@pytest.fixture
def session(lab: RunningLab) -> Iterator[Any]:
    with logged_in(lab) as session:
        yield session


def _call(session: Any, name: str, *parameters: object) -> Any:
    return session.xenapi_request(name, parameters)


def _methods(session: Any) -> set[str]:
    return set(session.system.listMethods())  # the one call that answers without an envelope


def _classes(session: Any) -> list[str]:
    """Return the classes that have records; those that a pool gave up are listed and refuse."""
    listed = sorted(name.partition(".")[0] for name in _methods(session) if name.endswith(".get_all_records"))
    return [cls for cls in listed if not _is_removed(session, f"{cls}.get_all_records")]


def _is_removed(session: Any, name: str, *parameters: object) -> bool:
    try:
        _call(session, name, *parameters)
    except XenAPI.Failure as refused:
        return bool(refused.details == ["MESSAGE_REMOVED"])
    return False


def test_every_class_is_listed_and_its_records_are_read(session: Any) -> None:
    populated: set[str] = set()
    for cls in _classes(session):
        records = _call(session, f"{cls}.get_all_records")
        assert set(records) == set(_call(session, f"{cls}.get_all")), cls
        populated |= {cls} if records else set()
    assert populated >= _ALWAYS_THERE


def test_every_getter_agrees_with_the_record(session: Any) -> None:
    methods = _methods(session)
    for cls in [cls for cls in _classes(session) if cls not in ("task", "session")]:  # these change by being read
        for ref, record in list(_call(session, f"{cls}.get_all_records").items())[:1]:
            assert _call(session, f"{cls}.get_record", ref) == record, cls
            if record.get("uuid"):
                assert _call(session, f"{cls}.get_by_uuid", record["uuid"]) == ref
            if f"{cls}.get_by_name_label" in methods:
                assert ref in _call(session, f"{cls}.get_by_name_label", record["name_label"]), cls
            getters = {name: f"{cls}.get_{name}" for name in record if f"{cls}.get_{name}" in methods}
            assert len(getters) == len(record) or cls == "message", cls
            for name, getter in getters.items():
                if not _is_removed(session, getter, ref):
                    assert _call(session, getter, ref) == record[name], getter


def test_the_encrypted_wire_is_read_by_who_trusts_the_certificate(lab: RunningLab) -> None:
    trusting = ssl.create_default_context(cadata=lab.certificate_pem)
    trusting.check_hostname = False  # the name on it is the host's own
    session = XenAPI.Session(lab.url, transport=xmlrpc.client.SafeTransport(context=trusting))
    session.xenapi.login_with_password(lab.user, lab.password.reveal(), "1.0", "judge")
    assert session.xenapi.pool.get_all()
    session.xenapi.session.logout()


def test_events_and_tasks_tell_of_an_asynchronous_call(session: Any) -> None:
    api = session.xenapi
    (vm,) = (ref for ref in api.VM.get_by_name_label("alpha") if not api.VM.get_is_a_snapshot(ref))
    token = getattr(api.event, "from")(["task", "VM"], "", 0.0)["token"]
    task = api.Async.VM.snapshot(vm, "told of")
    while api.task.get_status(task) == "pending":
        token = getattr(api.event, "from")([f"task/{task}"], token, 10.0)["token"]
    record = api.task.get_record(task)
    assert (record["status"], record["progress"]) == ("success", 1.0)
    made = record["result"].removeprefix("<value>").removesuffix("</value>")
    assert api.VM.get_name_label(made) == "told of"
    api.task.destroy(task)
    discard(api, made)
