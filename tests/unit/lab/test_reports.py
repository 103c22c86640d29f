"""What a host tells about itself over HTTP: empty where the lab has nothing, refused where a program is missing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from holdfast.lab import RunningLab
from tests.unit.lab.talk import Answer, ended, fetch, vm_named


def get(lab: RunningLab, session: Any, path: str, **headers: str) -> Answer:
    mark = "&" if "?" in path else "?"
    return fetch(lab, "GET", f"{path}{mark}session_id={session._session}", None, **headers)


def test_statistics_since_a_moment_are_well_formed_and_empty(lab: RunningLab, session: Any) -> None:
    answer = get(lab, session, "/rrd_updates?start=-300")
    meta = ElementTree.fromstring(answer.body).find("meta")
    assert meta is not None
    told = {each.tag: each.text for each in meta}
    assert (told["step"], told["rows"], told["columns"], told["legend"]) == ("5", "0", "0", None)
    assert 290 <= int(told["end"] or 0) - int(told["start"] or 0) <= 310
    assert answer.headers["content-type"] == "text/xml"


def test_statistics_come_as_json_to_who_asks_for_it(lab: RunningLab, session: Any) -> None:
    for answer in (
        get(lab, session, "/rrd_updates?start=1&json=true&interval=60"),
        get(lab, session, "/rrd_updates?start=1&interval=60", Accept="application/json"),
    ):
        body = json.loads(answer.body)
        assert (body["meta"]["step"], body["meta"]["legend"], body["data"]) == (86400, [], [])
        assert answer.headers["content-type"] == "application/json"


def test_statistics_want_a_start_and_a_known_vm(lab: RunningLab, session: Any, api: Any) -> None:
    assert get(lab, session, "/rrd_updates").status == 400
    assert get(lab, session, "/rrd_updates?start=soon").status == 500
    assert get(lab, session, "/vm_rrd").status == 400
    assert get(lab, session, "/vm_rrd?uuid=nope").status == 404
    uuid = api.VM.get_uuid(vm_named(api, "alpha"))
    for path in (f"/vm_rrd?uuid={uuid}", "/host_rrd"):
        assert ElementTree.fromstring(get(lab, session, path).body).tag == "rrd"
    assert json.loads(get(lab, session, "/host_rrd?json").body)["ds"] == []


def test_the_audit_log_is_empty(lab: RunningLab, session: Any) -> None:
    answer = get(lab, session, "/audit_log?since=2026-01-01")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/plain", b"")


def test_what_needs_a_control_domain_fails_its_task_after_the_200(lab: RunningLab, session: Any, api: Any) -> None:
    for path, code in (
        ("/system-status", "SYSTEM_STATUS_RETRIEVAL_FAILED"),
        ("/host_backup", "BACKUP_SCRIPT_FAILED"),
    ):
        task = api.task.create("report", "")
        answer = get(lab, session, f"{path}?task_id={task}")
        assert answer.status == 200
        assert b"500 Internal Error" in answer.body
        assert ended(lab, task)["error_info"][0] == code


def test_nothing_is_told_without_credentials(lab: RunningLab) -> None:
    for path, realm in (("/rrd_updates?start=1", "rrd_updates"), ("/host_backup", "get_host_backup")):
        answer = fetch(lab, "GET", path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, f'Basic realm="{realm}"')


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/sr_rrd", 400, b""),
        ("/sr_rrd?uuid=x", 404, b""),
        ("/blob", 400, b""),
        ("/blob?uuid=x", 404, b"Unknown reference\n"),
        ("/blob?ref=x", 404, b"Unknown reference\n"),
        ("/wlb_report", 500, b"Failure(&quot;Bad request&quot;)"),
        ("/wlb_report?report=x", 500, b"WLB_NOT_INITIALIZED: [  ]"),
        ("/wlb_diagnostics", 500, b"WLB_NOT_INITIALIZED: [  ]"),
        ("/vncsnapshot?uuid=x", 500, b"Db_exn.Read_missing_uuid(&quot;console&quot;, &quot;&quot;, &quot;x&quot;)"),
        ("/console", 500, b"Console.Failure"),
        ("/services/x", 404, b""),
        ("/updates/x", 404, b""),
        ("/repository", 403, b"HTTP 403 forbidden"),
        ("/sync_config_files", 200, b"Warning: legacy dom0 config files not supported"),
    ],
)
def test_a_door_behind_which_nothing_is_says_so_and_ends_the_connection(
    lab: RunningLab, session: Any, path: str, status: int, told: bytes
) -> None:
    answer = get(lab, session, path)
    assert (answer.status, answer.headers["connection"].lower()) == (status, "close")
    assert told in answer.body


def test_a_blob_that_nobody_knows_is_told_to_strangers_too(lab: RunningLab) -> None:
    assert fetch(lab, "GET", "/blob?uuid=x").status == 404
    assert fetch(lab, "GET", "/blob").status == 400
    assert fetch(lab, "GET", "/blob?ref=x").headers["www-authenticate"] == 'Basic realm="Blob handler"'
    assert fetch(lab, "PUT", "/blob").status == 401
