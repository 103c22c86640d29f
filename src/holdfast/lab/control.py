"""The lab's side channel: JSON over HTTP on loopback, for what no pool would tell or do.

One verb per request, with a bearer token. Whoever has the token owns the lab; nobody else gets further than a 403.
"""

from __future__ import annotations

import hmac
import json
from collections import Counter
from collections.abc import Callable, Mapping

from holdfast.core import HoldfastError, Secret, format_time, get_log
from holdfast.lab.clock import OFF_S_MAX
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.errors import ApiFailure
from holdfast.lab.faults import ArmedFault, FaultUnknown, FaultValueInvalid, fault_kinds
from holdfast.lab.generic import Handler
from holdfast.lab.http import Connection, Request
from holdfast.lab.rules import CBT_METADATA
from holdfast.lab.volumes import disk_uuid
from holdfast.lab.workload import Workload
from holdfast.model import JsonObject, JsonValue

__all__ = ["ControlServer"]

_BODY_BYTES_MAX = 1 << 20
_ADVANCE_S_MAX = 366 * 86_400
_CLASSES_SEARCHED = ("VM", "VDI", "VBD", "VIF", "task", "network")

_REFUSALS = (ApiFailure, FaultUnknown, FaultValueInvalid, HoldfastError, KeyError, TypeError, ValueError)
"""What a verb raises for a request that makes no sense; the text is the answer."""

log = get_log(__name__)

Verb = Callable[[JsonObject], JsonValue]


class ControlServer:
    """Answers the verbs of the side channel."""

    def __init__(
        self,
        pool: PoolCore,
        workload: Workload,
        token: Secret,
        stop: Callable[[], None],
        *,
        calls: Mapping[str, Handler],
    ) -> None:
        self._pool = pool
        self._calls = calls
        self._workload = workload
        self._token = token
        self._stop = stop
        self._verbs: dict[str, Verb] = {
            "status": self._status,
            "hash": self._hash,
            "witness": self._witness,
            "fault-arm": self._fault_arm,
            "fault-clear": self._fault_clear,
            "fault-list": self._fault_list,
            "fault-kinds": self._fault_kinds,
            "ours": self._ours,
            "leftovers": self._leftovers,
            "start-vm": self._start_vm,
            "shut-down-vm": self._shut_down_vm,
            "work-guest": self._work_guest,
            "change-files": self._change_files,
            "write-pages": self._write_pages,
            "append-log": self._append_log,
            "start-writing": self._start_writing,
            "stop-writing": self._stop_writing,
            "check-filesystem": self._check_filesystem,
            "attachments": self._attachments,
            "advance-clock": self._advance_clock,
            "restart-toolstack": self._restart_toolstack,
            "stop": self._stop_lab,
        }

    def serve(self, request: Request, connection: Connection) -> bool:
        """Answer one request of the side channel."""
        body = connection.read_body(min(request.content_length or 0, _BODY_BYTES_MAX))
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or not hmac.compare_digest(token.encode(), self._token.reveal().encode()):
            _answer(connection, "403 Forbidden", {"error": "the token is missing or wrong"})
            return False
        verb = self._verbs.get(request.path.removeprefix("/"))
        if verb is None:
            _answer(connection, "404 Not Found", {"error": f"no verb {request.path.removeprefix('/')!r}"})
            return True
        status, document = _carried_out(verb, body)
        _answer(connection, status, document)
        return True

    # -- verbs

    def _status(self, asked: JsonObject) -> JsonValue:
        db = self._pool.db
        vms = [row for row in db.rows("VM") if not row.fields["is_control_domain"]]
        templates = [row for row in vms if row.fields["is_a_template"] and not row.fields["is_a_snapshot"]]
        machines = [row for row in vms if not row.fields["is_a_template"]]
        return {
            "vms": [
                {
                    "name": str(row.fields["name_label"]),
                    "uuid": str(row.fields["uuid"]),
                    "power_state": _power(row.fields),
                }
                for row in machines
            ],
            "power_states": dict(sorted(Counter(_power(row.fields) for row in machines).items())),
            "templates": len(templates),
            "snapshots": sum(bool(row.fields["is_a_snapshot"]) for row in vms),
            "disks": db.count("VDI"),
            "sessions": db.count("session"),
            "tasks": db.count("task"),
            "time": format_time(self._pool.clock.now()),
            "faults": len(self._pool.faults.armed()),
        }

    def _hash(self, asked: JsonObject) -> JsonValue:
        return self._pool.disks.sha256(str(asked["disk"]))

    def _witness(self, asked: JsonObject) -> JsonValue:
        self._pool.disks.set_witness(enabled=bool(asked["enabled"]))
        return None

    def _fault_arm(self, asked: JsonObject) -> JsonValue:
        parameters = asked.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise TypeError("parameters are no object")
        count = _number(asked, "count") if asked.get("count") is not None else None
        plain: dict[str, str | int | float] = {}
        for name, value in parameters.items():
            if not isinstance(value, str | int | float):
                raise TypeError(f"parameter {name} is neither text nor a number")
            plain[name] = value
        return _fault_json(self._pool.faults.arm_with(str(asked["name"]), plain, count=count))

    def _fault_clear(self, asked: JsonObject) -> JsonValue:
        return self._pool.faults.clear(name=str(asked.get("name") or ""))

    def _fault_list(self, asked: JsonObject) -> JsonValue:
        return [_fault_json(fault) for fault in self._pool.faults.armed()]

    def _fault_kinds(self, asked: JsonObject) -> JsonValue:
        return list(fault_kinds())

    def _ours(self, asked: JsonObject) -> JsonValue:
        """List what carries somebody's mark in its name or tags."""
        db = self._pool.db
        rows = [(cls, db.row(cls, ref).fields) for cls, ref in self._marked(asked)]
        return [
            {"class": cls, "uuid": str(fields["uuid"]), "name": str(fields.get("name_label", ""))}
            for cls, fields in rows
        ]

    def _marked(self, asked: JsonObject) -> list[tuple[str, str]]:
        mark = str(asked["mark"]).lower()
        found: list[tuple[str, str]] = []
        for cls in _CLASSES_SEARCHED:
            for row in self._pool.db.rows(cls):
                marks = [row.fields.get("name_label", ""), row.fields.get("other_config", {})]
                if mark in json.dumps(marks).lower():
                    found.append((cls, row.ref))
        return found

    def _leftovers(self, asked: JsonObject) -> JsonValue:
        """List, readable, what a finished backup must not leave: its objects but change metadata, and attachments."""
        db = self._pool.db
        found: list[JsonValue] = []
        for each in self._marked(asked):
            cls, ref = each
            fields = db.row(cls, ref).fields
            if cls != "VDI" or fields["type"] != CBT_METADATA:
                found.append(f"{cls} {fields.get('name_label', '')} ({fields['uuid']})")
        found += [f"disk {disk} attached to the control domain" for disk in self._attached()]
        return found

    def _start_vm(self, asked: JsonObject) -> JsonValue:
        self._calls["VM.start"](Context(self._pool, host=self._pool.master_ref), self._vm(asked), False, False)
        return None

    def _shut_down_vm(self, asked: JsonObject) -> JsonValue:
        self._calls["VM.shutdown"](Context(self._pool, host=self._pool.master_ref), self._vm(asked))
        return None

    def _vm(self, asked: JsonObject) -> str:
        return self._pool.db.by_uuid("VM", self._vm_uuid(str(asked["vm"])))

    def _work_guest(self, asked: JsonObject) -> JsonValue:
        return list(self._workload.work(self._vm_uuid(str(asked["vm"]))))

    def _vm_uuid(self, wanted: str) -> str:
        """Return the uuid of the VM that is named by it, or by a name that no other VM has."""
        db = self._pool.db
        if db.has_uuid("VM", wanted):
            return wanted
        machines = [row.fields for row in db.rows("VM") if not row.fields["is_a_snapshot"]]
        found = [str(fields["uuid"]) for fields in machines if fields["name_label"] == wanted]
        if len(found) != 1:
            raise ValueError(f"{len(found) or 'no'} VMs are called {wanted!r}; name one, or give its uuid")
        return found[0]

    def _change_files(self, asked: JsonObject) -> JsonValue:
        count, total_bytes = _number(asked, "count"), _number(asked, "total_bytes")
        return dict(self._workload.change_files(str(asked["disk"]), count=count, total_bytes=total_bytes))

    def _write_pages(self, asked: JsonObject) -> JsonValue:
        fraction = asked["fraction"]
        if not isinstance(fraction, int | float):
            raise TypeError("fraction is no number")
        return dict(self._workload.write_pages(str(asked["disk"]), fraction=float(fraction)))

    def _append_log(self, asked: JsonObject) -> JsonValue:
        return dict(self._workload.append_log(str(asked["disk"]), length_bytes=_number(asked, "length_bytes")))

    def _start_writing(self, asked: JsonObject) -> JsonValue:
        self._workload.start_writing(str(asked["disk"]))
        return None

    def _stop_writing(self, asked: JsonObject) -> JsonValue:
        written = self._workload.stop_writing(str(asked["disk"]))
        return {"writes": written.writes, "written_bytes": written.written_bytes}

    def _check_filesystem(self, asked: JsonObject) -> JsonValue:
        found = self._workload.check(str(asked["disk"]))
        return {"found": found.is_expected, "clean": found.report.clean, "detail": found.report.detail}

    def _attachments(self, asked: JsonObject) -> JsonValue:
        """List the disks that the control domain has attached now."""
        return list(self._attached())

    def _attached(self) -> list[str]:
        db = self._pool.db
        vbds = db.texts("VM", self._pool.control_domain_ref, "VBDs")
        return [disk_uuid(self._pool, db.text("VBD", vbd, "VDI")) for vbd in vbds]

    def _advance_clock(self, asked: JsonObject) -> JsonValue:
        """Let time pass at once, with all that the pool does meanwhile; say what time it is then."""
        seconds = asked["seconds"]
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= _ADVANCE_S_MAX:
            raise ValueError(f"seconds is no number from 0 to {_ADVANCE_S_MAX}")
        if self._pool.clock.lead_s + seconds > OFF_S_MAX:
            raise ValueError(f"the lab would be more than {OFF_S_MAX} seconds ahead; start it anew for the real time")
        self._pool.chores.advance(float(seconds))
        return format_time(self._pool.clock.now())

    def _restart_toolstack(self, asked: JsonObject) -> JsonValue:
        """Forget sessions and tasks at once, as a restart of the management daemon does."""
        silent_s = asked.get("seconds", 0.0)
        if not isinstance(silent_s, int | float) or isinstance(silent_s, bool):
            raise TypeError("seconds is no number")
        self._pool.faults.arm("toolstack-restarts", seconds=float(silent_s))
        return None

    def _stop_lab(self, asked: JsonObject) -> JsonValue:
        self._stop()
        return None


def _carried_out(verb: Verb, body: bytes) -> tuple[str, JsonObject]:
    """Return the status and the document that answer a request, whatever becomes of it."""
    try:
        asked = json.loads(body or b"{}")
        if not isinstance(asked, dict):
            raise ValueError("the body is no object")
        return "200 OK", {"result": verb(asked)}
    except _REFUSALS as refusal:
        return "400 Bad Request", {"error": str(refusal) or repr(refusal)}
    except Exception as mistake:
        log.exception("lab.verb-failed")
        return "500 Internal Server Error", {"error": str(mistake) or repr(mistake)}


def _power(fields: dict[str, object]) -> str:
    return str(fields["power_state"])


def _number(asked: JsonObject, name: str) -> int:
    value = asked[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is no whole number")
    return value


def _fault_json(fault: ArmedFault) -> JsonObject:
    return {"id": fault.id, "name": fault.name, "remaining": fault.remaining, "parameters": dict(fault.parameters)}


def _answer(connection: Connection, status: str, document: JsonObject) -> None:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.send(head.encode() + body)
