"""Users with roles: what each may call, at the calls and at the data handlers, and how long a user stays one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import XenAPI

from holdfast.lab import RunningLab
from tests.support.lab import PASSWORD, logged_in, tiny_lab
from tests.unit.lab.talk import ended, fetch, first_disk, json_call, refusal, vm_named

DENIED = "RBAC_PERMISSION_DENIED"
ROLES = ("read-only", "vm-operator", "vm-admin", "vm-power-admin", "pool-operator", "pool-admin")


@pytest.fixture(scope="module")
def staffed() -> Iterator[RunningLab]:
    """A pool with one user per role, all of the lab's password."""
    with tiny_lab(role_users=True, nbd="none") as running:
        yield running


@pytest.fixture
def root(staffed: RunningLab) -> Iterator[Any]:
    """The superuser's calls."""
    with logged_in(staffed) as session:
        yield session.xenapi


def _as(lab: RunningLab, user: str) -> Any:
    session = XenAPI.Session(lab.plain_url)
    session.xenapi.login_with_password(user, PASSWORD, "1.0", "test")
    return session


@pytest.mark.parametrize("spelling", ["read-only", "READ-ONLY", "LAB\\read-only", "read-only@lab.example"])
def test_a_user_is_the_same_however_he_spells_himself(staffed: RunningLab, root: Any, spelling: str) -> None:
    session = _as(staffed, spelling)
    record = root.session.get_record(session._session)
    assert record["is_local_superuser"] is False
    assert root.subject.get_subject_identifier(record["subject"]) == record["auth_user_sid"]
    assert "vm.get_record" in record["rbac_permissions"]
    assert "vm.start" not in record["rbac_permissions"]


@pytest.mark.parametrize(
    ("call", "least"),
    [
        (lambda api, vm: api.VM.get_record(vm), "read-only"),
        (lambda api, vm: api.VM.unpause("OpaqueRef:none"), "vm-operator"),
        (lambda api, vm: api.VM.snapshot("OpaqueRef:none", "x"), "vm-power-admin"),
        (lambda api, vm: api.VM.set_name_label("OpaqueRef:none", "x"), "vm-admin"),
        (lambda api, vm: api.VDI.list_changed_blocks("OpaqueRef:none", "OpaqueRef:none"), "vm-operator"),
        (lambda api, vm: api.SR.scan("OpaqueRef:none"), "vm-power-admin"),
        (lambda api, vm: api.network.destroy("OpaqueRef:none"), "vm-admin"),
        (lambda api, vm: api.PBD.unplug("OpaqueRef:none"), "pool-operator"),
        (lambda api, vm: api.subject.destroy("OpaqueRef:none"), "pool-admin"),
    ],
)
def test_a_call_is_for_its_role_and_those_above(
    staffed: RunningLab, root: Any, call: Callable[[Any, str], Any], least: str
) -> None:
    vm = vm_named(root, "alpha")
    may = []
    for role in ROLES:
        session = _as(staffed, role)
        try:
            call(session.xenapi, vm)
        except XenAPI.Failure as failure:
            if failure.details[0] == DENIED:
                continue
        may.append(role)
    assert may == list(ROLES[ROLES.index(least) :])


def test_a_denial_names_the_roles_that_may(staffed: RunningLab, root: Any) -> None:
    api = _as(staffed, "read-only").xenapi
    text = (
        "No permission in user session. (Roles with this permission: "
        "vm-power-admin, vm-admin, vm-operator, pool-admin, pool-operator)"
    )
    wanted = [DENIED, "vm.start", text]
    assert refusal(lambda: api.VM.start(vm_named(root, "alpha"), False, False)) == wanted


def test_a_denied_asynchronous_call_is_a_failed_task(staffed: RunningLab, root: Any) -> None:
    session = _as(staffed, "read-only")
    task = session.xenapi.Async.VM.start(vm_named(root, "alpha"), False, False)
    record = ended(staffed, task)
    assert (record["status"], record["error_info"][:2]) == ("failure", [DENIED, "vm.start"])


def test_keys_of_a_map_have_roles_of_their_own(staffed: RunningLab, root: Any) -> None:
    vm = vm_named(root, "beta")
    operator, admin = _as(staffed, "vm-operator").xenapi, _as(staffed, "vm-admin").xenapi
    operator.VM.add_to_other_config(vm, "folder", "/here")
    assert refusal(lambda: operator.VM.add_to_other_config(vm, "mine", "1"))[:2] == [DENIED, "vm.add_to_other_config"]
    denied = refusal(lambda: admin.VM.add_to_other_config(vm, "pci", "0/0"))
    assert denied[:2] == [DENIED, "vm.add_to_other_config/key:pci"]
    config = root.VM.get_other_config(vm)
    assert refusal(lambda: admin.VM.set_other_config(vm, {**config, "pci": "0/0"}))[0] == DENIED
    operator.VM.remove_from_other_config(vm, "folder")


def test_everybody_may_end_his_own_tasks_only(staffed: RunningLab, root: Any) -> None:
    reader = _as(staffed, "read-only").xenapi
    mine, another = reader.task.create("mine", ""), root.task.create("another's", "")
    reader.task.destroy(mine)
    assert refusal(lambda: reader.task.destroy(another))[:2] == [DENIED, "task.destroy/any"]
    root.task.destroy(another)


@pytest.mark.parametrize(
    ("user", "path", "status"),
    [
        ("read-only", "/export_raw_vdi", "403"),
        ("vm-admin", "/export_raw_vdi", "200"),
        ("vm-operator", "/export", "403"),
        ("pool-operator", "/pool/xmldbdump", "403"),
    ],
)
def test_data_is_for_roles_too(staffed: RunningLab, root: Any, user: str, path: str, status: str) -> None:
    session, vm = _as(staffed, user)._session, vm_named(root, "alpha")
    task = root.task.create("transfer", "")
    query = {"vdi": first_disk(root, vm), "ref": vm, "session_id": session, "task_id": task, "format": "raw"}
    answer = fetch(staffed, "GET", path + "?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert str(answer.status) == status
    record = ended(staffed, task) if status == "403" else {"error_info": []}
    assert record["error_info"][:1] == ([DENIED] if status == "403" else [])
    root.task.destroy(task)


def test_a_stranger_to_the_pool_cannot_log_in(staffed: RunningLab, root: Any) -> None:
    api = XenAPI.Session(staffed.plain_url)
    subject = next(ref for ref, record in root.subject.get_all_records().items() if "vm-admin" in str(record))
    roles, identifier = root.subject.get_roles(subject), root.subject.get_subject_identifier(subject)
    record = root.subject.get_record(subject)
    held = _as(staffed, "vm-admin")
    root.subject.destroy(subject)
    try:
        assert (
            refusal(lambda: api.xenapi.login_with_password("vm-admin", PASSWORD))[0] == "SESSION_AUTHORIZATION_FAILED"
        )
        staffed.pool.chores.advance(1900)
        answer = json_call(staffed, "VM.get_all", held._session)
        assert answer["error"]["message"] == "SESSION_INVALID", "a session outlives its user for half an hour only"
        back = root.subject.create({"subject_identifier": identifier, "other_config": record["other_config"]})
        assert refusal(lambda: api.xenapi.login_with_password("vm-admin", PASSWORD))[0] == DENIED
    finally:
        for role in roles:
            root.subject.add_to_roles(back, role)
    assert _as(staffed, "vm-admin").xenapi.VM.get_all()


def test_an_admin_ends_the_sessions_of_a_user(staffed: RunningLab, root: Any) -> None:
    session = _as(staffed, "vm-operator")
    identifier = root.session.get_auth_user_sid(session._session)
    assert identifier in root.session.get_all_subject_identifiers()
    root.session.logout_subject_identifier(identifier)
    assert json_call(staffed, "VM.get_all", session._session)["error"]["message"] == "SESSION_INVALID"


def test_roles_are_made_of_permissions(root: Any) -> None:
    [admin] = root.role.get_by_name_label("vm-admin")
    labels = root.role.get_permissions_name_label(admin)
    assert "vm.clone" in labels
    assert "sr.destroy" not in labels
    holders = [root.role.get_name_label(role) for role in root.role.get_by_permission_name_label("sr.destroy")]
    assert sorted(holders) == ["pool-admin", "pool-operator"]


def test_a_pool_without_a_directory_knows_the_superuser_only(lab: RunningLab) -> None:
    stranger = XenAPI.Session(lab.plain_url)
    refused = refusal(lambda: stranger.xenapi.login_with_password("vm-admin", PASSWORD))
    assert refused == [
        "SESSION_AUTHENTICATION_FAILED",
        "vm-admin",
        "User not known to the underlying authentication module",
    ]
