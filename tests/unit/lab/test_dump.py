"""The dump of a pool's database: what it holds, what is refused, and the reboot that makes it the truth."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.lab import RunningLab
from holdfast.lab.columns import SpellingInvalid, column_of, parse, spell
from holdfast.lab.datamodel import load_datamodel, parse_type
from holdfast.lab.dump import Dump, DumpMalformed, DumpReader
from tests.support.golden import golden_path
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import converse, ended, fetch, first_disk, json_call, vm_named

_PATH = "/pool/xmldbdump?session_id={session}"


@pytest.fixture(scope="module")
def dump_lab() -> Iterator[RunningLab]:
    with tiny_lab() as running:
        yield running


@pytest.fixture
def dump_session(dump_lab: RunningLab) -> Iterator[Any]:
    with logged_in(dump_lab) as session:
        yield session


def taken(lab: RunningLab, session: Any) -> bytes:
    return fetch(lab, "GET", _PATH.format(session=session._session)).body


def put(lab: RunningLab, session: Any, body: bytes, query: str = "") -> bytes:
    path = _PATH.format(session=session._session) + query
    head = f"PUT {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return converse(lab, head + body, half_close=True)


def read(body: bytes) -> Dump:
    reader = DumpReader(load_datamodel())
    for at in range(0, len(body), 1000):
        reader.feed(body[at : at + 1000])
    return reader.finish()


@pytest.mark.parametrize(
    ("spelling", "value", "text"),
    [
        ("string", "it's", "it's"),
        ("int", -5, "-5"),
        ("float", 0.5, "0.5"),
        ("float", 1.0, "1"),
        ("bool", True, "true"),
        ("string set", [], "()"),
        ("string set", ["a b", "it's", "back\\slash"], "('a b' 'it\\'s' 'back\\\\slash')"),
        ("(string -> string) map", {"k": "('x')"}, "(('k' '(\\'x\\')'))"),
        ("(int -> int) map", {"1": 2}, "(('1' '2'))"),
    ],
)
def test_a_value_is_spelled_as_the_database_does_and_read_back(spelling: str, value: object, text: str) -> None:
    assert spell(value) == text
    assert parse(text, parse_type(spelling)) == value


@pytest.mark.parametrize("text", ["", "x", "('a'", "('a' b)", "('a') 'b'", "('a", "(('a' 'b' 'c'))", "(" * 5000])
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(SpellingInvalid):
        parse(text, parse_type("(string -> string) map"))


def test_a_dump_reads_back_as_the_rows_it_was_made_of(dump_lab: RunningLab, dump_session: Any) -> None:
    api = dump_session.xenapi
    vm = vm_named(api, "alpha")
    api.VM.add_to_other_config(vm, "odd", "two\nlines 100% & <more> 'than' \"that\"")
    dump = read(taken(dump_lab, dump_session))
    assert dump.is_compatible
    row = dict(dump_lab.pool.db.row("VM", vm).fields)
    found = dump.tables["VM"][vm]
    assert {name for name in row if row[name] != found[name]} <= {"allowed_operations", "guest_metrics"}, "computed"
    assert set(dump.tables["VDI"]) == {row.ref for row in dump_lab.pool.db.rows("VDI")}
    assert not {"session", "task", "message"} & set(dump.tables)


def test_a_dump_has_the_tables_and_columns_of_a_real_one(dump_lab: RunningLab, dump_session: Any) -> None:
    ours = ElementTree.fromstring(taken(dump_lab, dump_session))
    real = ElementTree.fromstring(golden_path("pool-xmldbdump.xml").read_bytes())
    assert [table.get("name") for table in ours.iter("table")] == [table.get("name") for table in real.iter("table")]
    rows = {table.get("name"): table[0] for table in real.iter("table") if len(table)}
    for table in ours.iter("table"):
        if len(table) and table.get("name") in rows:
            assert list(table[0].keys()) == list(rows[table.get("name")].keys())


def test_a_real_dump_reads(dump_lab: RunningLab) -> None:
    dump = read(golden_path("pool-xmldbdump.xml").read_bytes())
    assert dump.is_compatible
    assert len(dump.tables["VM"]) == 24


def test_columns_carry_their_namespace_apart() -> None:
    assert [column_of(name) for name in ("name_label", "VCPUs_max", "PV_drivers_version", "other_config")] == [
        "name__label",
        "VCPUs__max",
        "PV_drivers_version",
        "other_config",
    ]


_WHOLE = (
    b'<database><manifest><pair key="schema_major_vsn" value="5"/><pair key="schema_minor_vsn" value="909"/>'
    b'<pair key="generation_count" value="7"/></manifest><table name="VM">%s</table></database>'
)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", 'Xmlm.Error(1:1, "unexpected end of input")'),
        (b"hello", 'Xmlm.Error(1:1, "expected root element")'),
        (b"<database><manifest>", 'Xmlm.Error(1:21, "unexpected end of input")'),
        (b"<database/>", "Not_found"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><database/>", 'Xmlm.Error(1:1, "illegal document type")'),
        (b"<html/>", 'Xapi_database.Db_xml.Unmarshall_error("Unexpected tag: html")'),
        (_WHOLE % b'<row uuid="x"/>', 'Xapi_database.Db_xml.Unmarshall_error("Row does not have ref attribute")'),
        (
            _WHOLE % b'<row ref="OpaqueRef:1" colour="x"/>',
            'Xapi_database.Db_xml.Unmarshall_error("Unexpected column in table VM: colour")',
        ),
        ((_WHOLE % b"").replace(b'"7"', b'"x"'), 'Failure("Int64.of_string")'),
    ],
)
def test_a_broken_dump_is_refused_with_the_pools_words(body: bytes, reason: str) -> None:
    with pytest.raises(DumpMalformed, match=f"^{re.escape(reason)}$"):
        read(body)


def test_a_dump_with_a_flipped_byte_is_refused_or_harmless(dump_lab: RunningLab, dump_session: Any) -> None:
    whole = taken(dump_lab, dump_session)
    chance = random.Random(5)
    for _ in range(4):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            read(bytes(damaged))
        except DumpMalformed:
            continue


def test_only_a_session_gets_the_database(dump_lab: RunningLab) -> None:
    answer = fetch(dump_lab, "GET", "/pool/xmldbdump")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="get_pool_xml_db_sync"')


def test_a_rehearsed_restore_changes_nothing(dump_lab: RunningLab, dump_session: Any) -> None:
    api = dump_session.xenapi
    task = api.task.create("restore", "")
    answer = put(dump_lab, dump_session, taken(dump_lab, dump_session), f"&dry_run=true&task_id={task}")
    assert answer == b"HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: no-cache, no-store\r\n\r\n"
    assert ended(dump_lab, task)["status"] == "success"
    dump_lab.pool.chores.advance(60)
    assert api.VM.get_all()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda body: body.replace(b'value="909"', b'value="1"'), ["RESTORE_INCOMPATIBLE_VERSION"]),
        (lambda body: body.replace(b' device="eth0"', b' device="eth7"'), ["RESTORE_TARGET_MISSING_DEVICE", "eth7"]),
        (lambda body: body[:-20], None),
    ],
)
def test_a_dump_that_does_not_fit_fails_the_task_after_the_200(
    dump_lab: RunningLab, dump_session: Any, change: Any, error: list[str] | None
) -> None:
    task = dump_session.xenapi.task.create("restore", "")
    answer = put(dump_lab, dump_session, change(taken(dump_lab, dump_session)), f"&task_id={task}")
    record = ended(dump_lab, task)
    assert record["status"] == "failure"
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 500 Internal Error" in answer
    if error is not None:
        assert record["error_info"] == error
    else:
        assert record["error_info"][0] == "INTERNAL_ERROR"
    assert not dump_lab.pool.chores.is_due("restore-reboot")


def test_a_body_of_unknown_length_is_not_read(dump_lab: RunningLab, dump_session: Any) -> None:
    head = f"PUT {_PATH.format(session=dump_session._session)} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()
    assert converse(dump_lab, head, half_close=True).startswith(b"HTTP/1.1 400 Bad Request")


@pytest.mark.slow(reason="starts a lab of its own and takes its sessions away")
def test_a_restored_database_is_there_after_the_reboot_and_nobody_is_logged_in() -> None:
    with tiny_lab() as lab:
        with logged_in(lab) as session:
            api = session.xenapi
            vm = vm_named(api, "alpha")
            before = taken(lab, session)
            disk = first_disk(api, vm)
            api.VM.set_name_label(vm, "renamed")
            lost = api.VDI.snapshot(disk)
            kept_uuid = api.VDI.get_uuid(lost)
            put(lab, session, before)
            lab.pool.chores.advance(29)
            assert api.VM.get_name_label(vm) == "renamed"
            lab.pool.chores.advance(2)
            assert json_call(lab, "VM.get_all", session._session)["error"]["message"] == "SESSION_INVALID"
        with logged_in(lab) as session:
            api = session.xenapi
            assert api.VM.get_name_label(vm) == "alpha"
            assert first_disk(api, vm) == disk
            assert api.VDI.get_by_uuid(kept_uuid), "a disk that storage holds is shown whatever the backup says"
            vms = [api.VM.get_record(each) for each in api.VM.get_all()]
            assert {record["power_state"] for record in vms if not record["is_control_domain"]} == {"Halted"}
            assert api.host.get_resident_VMs(api.host.get_all()[0])


@pytest.mark.slow(reason="starts two labs")
def test_a_backup_of_another_pool_becomes_this_machine() -> None:
    with tiny_lab() as source, logged_in(source) as session:
        source_vms = set(session.xenapi.VM.get_all_records())
        body = taken(source, session)
    with tiny_lab() as lab:
        with logged_in(lab) as session:
            host_uuid = session.xenapi.host.get_uuid(session.xenapi.host.get_all()[0])
            assert b"HTTP/1.1 500" not in put(lab, session, body)
            lab.pool.chores.advance(31)
        with logged_in(lab) as session:
            api = session.xenapi
            assert [api.host.get_uuid(host) for host in api.host.get_all()] == [host_uuid]
            assert set(api.VM.get_all()) == source_vms
            assert all(lab.pool.disks.exists(record["uuid"]) for record in api.VDI.get_all_records().values())
