"""What every class can do, and how a call that cannot be served is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.unit.lab.talk import first_disk, json_call, new_disk, refusal, vm_named


def test_a_record_has_every_field_and_a_getter_agrees_with_it(lab: RunningLab, api: Any) -> None:
    vm = vm_named(api, "alpha")
    record = api.VM.get_record(vm)
    assert set(record) == set(lab.pool.db.table("VM").fields)
    for name in ("name_label", "power_state", "VBDs", "memory_static_max", "other_config", "allowed_operations"):
        assert getattr(api.VM, f"get_{name}")(vm) == record[name]


def test_an_object_is_found_by_uuid_and_by_name(api: Any) -> None:
    vm = vm_named(api, "beta")
    assert api.VM.get_by_uuid(api.VM.get_uuid(vm)) == vm
    assert api.VM.get_by_name_label("no such name") == []
    assert set(api.VM.get_all()) == set(api.VM.get_all_records())


def test_maps_and_sets_change_key_by_key(api: Any) -> None:
    vm = vm_named(api, "alpha")
    api.VM.add_to_other_config(vm, "k", "v")
    assert refusal(lambda: api.VM.add_to_other_config(vm, "k", "w")) == [
        "MAP_DUPLICATE_KEY",
        "VM",
        "other_config",
        vm,
        "k",
    ]
    api.VM.remove_from_other_config(vm, "k")
    api.VM.remove_from_other_config(vm, "k")
    api.VM.add_tags(vm, "t")
    api.VM.add_tags(vm, "t")
    assert api.VM.get_tags(vm).count("t") == 1
    api.VM.remove_tags(vm, "t")
    assert "k" not in api.VM.get_other_config(vm)
    assert "t" not in api.VM.get_tags(vm)


def test_a_set_of_references_follows_the_reference_on_the_other_side(api: Any) -> None:
    vm, disk = vm_named(api, "alpha"), new_disk(api, 4 << 20)
    assert disk in api.SR.get_VDIs(api.VDI.get_SR(disk))
    record = {"VM": vm, "VDI": disk, "userdevice": "9", "bootable": False, "mode": "RW", "type": "Disk"}
    vbd = api.VBD.create(
        {**record, "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    )
    assert vbd in api.VM.get_VBDs(vm)
    assert api.VDI.get_VBDs(disk) == [vbd]
    api.VDI.destroy(disk)
    assert vbd not in api.VM.get_VBDs(vm)


@pytest.mark.parametrize(
    ("method", "parameters", "wanted"),
    [
        ("VM.get_nope", (), ["MESSAGE_METHOD_UNKNOWN", "VM.get_nope"]),
        ("Nope.get_all", (), ["MESSAGE_METHOD_UNKNOWN", "Nope.get_all"]),
        ("VM.get_record", (), ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_record", "1", "0"]),
        ("VM.get_all", ("x",), ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_all", "0", "1"]),
        ("VM.snapshot", ("x",), ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.snapshot", "2", "1"]),
        ("VM.get_record", ("OpaqueRef:x",), ["HANDLE_INVALID", "VM", "OpaqueRef:x"]),
        ("VDI.get_by_uuid", ("x",), ["UUID_INVALID", "VDI", "x"]),
        ("VM.snapshot_with_quiesce", ("OpaqueRef:x", "q"), ["MESSAGE_REMOVED"]),
        ("VDI.set_virtual_size", ("OpaqueRef:x", "5"), ["HANDLE_INVALID", "VDI", "OpaqueRef:x"]),
        ("SR.set_physical_utilisation", ("OpaqueRef:x", "5"), ["PERMISSION_DENIED", ""]),
        ("Async.VDI.get_record", ("x",), ["Fault", "No async mode for this operation (rpc: VDI.get_record)"]),
        ("PVS_site.introduce", ("a", "b", "c"), ["OPENVSWITCH_NOT_ACTIVE"]),
        ("network.create", ({},), ["INTERNAL_ERROR", 'Server_helpers.Dispatcher_FieldNotFound("other_config")']),
    ],
)
def test_a_call_that_cannot_be_served_is_refused_as_a_pool_does(
    session: Any, method: str, parameters: tuple[Any, ...], wanted: list[str]
) -> None:
    call = session.xenapi
    for part in method.split("."):
        call = getattr(call, part)
    assert refusal(lambda: call(*parameters)) == wanted


def test_a_refused_creation_changes_nothing(api: Any) -> None:
    before = set(api.VDI.get_all())
    for changes in ({"type": "nope"}, {"SR": "OpaqueRef:NULL"}, {"virtual_size": "x"}, {"type": "cbt_metadata"}):
        sr = api.pool.get_default_SR(api.pool.get_all()[0])
        record: dict[str, Any] = {"name_label": "x", "name_description": "", "SR": sr, "virtual_size": "4194304"}
        record |= {"type": "user", "sharable": False, "read_only": False, "other_config": {}, **changes}
        refusal(lambda record=record: api.VDI.create(record))  # type: ignore[misc]
    assert set(api.VDI.get_all()) == before


def test_a_call_whose_optional_parameters_are_left_out_or_too_many_is_served(api: Any) -> None:
    disk = first_disk(api, vm_named(api, "alpha"))
    extras: list[tuple[Any, ...]] = [(), ({},), ({}, "ignored")]
    for extra in extras:
        snapshot = api.VDI.snapshot(disk, *extra)
        api.VDI.destroy(snapshot)
    assert api.VDI.get_is_a_snapshot(disk) is False


def test_names_of_all_calls_are_listed_to_anybody(lab: RunningLab) -> None:
    names = json_call(lab, "system.listMethods")["result"]
    assert len(names) > 2000
    assert {"VM.snapshot", "VDI.list_changed_blocks", "event.from", "session.login_with_password"} <= set(names)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('field "name__label"="alpha"', {"alpha"}),
        ('field "name__label"="alpha" or field "name__label"="beta"', {"alpha", "beta"}),
        ('not field "is_control_domain"="true"', {"alpha", "beta"}),
        ('not (field "name__label"="alpha") and field "power_state"="nope"', {"alpha", "beta"}),
        ("false", set()),
    ],
)
def test_records_are_found_by_an_expression(api: Any, expression: str, found: set[str]) -> None:
    records = api.VM.get_all_records_where(expression).values()
    assert {r["name_label"] for r in records if not r["is_control_domain"]} == found


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ('field "name_label"="x"', ["INTERNAL_ERROR", "missing field", "name_label", ""]),
        (
            'field "name__label"',
            ["INVALID_VALUE", 'field "name__label"', "Xapi_database.Db_filter_parse.MenhirBasics.Error"],
        ),
        ("field x", ["INVALID_VALUE", "field x", 'Failure("lexing: empty token")']),
        ("(" * 300, ["INVALID_VALUE", "(" * 300, "Xapi_database.Db_filter_parse.MenhirBasics.Error"]),
    ],
)
def test_an_expression_that_cannot_be_read_is_refused(api: Any, expression: str, wanted: list[str]) -> None:
    assert refusal(lambda: api.VM.get_all_records_where(expression)) == wanted


def test_messages_are_kept_listed_and_forgotten(lab: RunningLab, api: Any) -> None:
    uuid = api.VM.get_uuid(vm_named(api, "alpha"))
    message = api.message.create("BACKUP_FAILED", "3", "VM", uuid, "a disk was busy")
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(api.message.destroy, message)
        assert api.message.get_record(message)["body"] == "a disk was busy"
        assert message in api.message.get_all_records()
    assert refusal(lambda: api.message.get_record(message)) == ["HANDLE_INVALID", "message", message]


def test_a_call_may_be_spelled_with_an_underscore(session: Any, api: Any) -> None:
    assert session.xenapi_request("VM_get_all", ()) == api.VM.get_all()
    (pool,) = api.pool.get_all()
    task = session.xenapi_request("Async.pool_sync_database", ())
    assert api.task.get_name_label(task) == "Async.pool_sync_database"
    told = refusal(lambda: session.xenapi_request("pool_get_uuid", (pool, "too much")))
    assert told[:2] == ["MESSAGE_PARAMETER_COUNT_MISMATCH", "pool_get_uuid"]
