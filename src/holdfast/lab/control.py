"""The lab's side channel: JSON over HTTP on loopback, for what no pool would tell or do.

One verb per request, with a bearer token. Whoever has the token owns the lab; nobody else gets further than a 403.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable

from holdfast.core import HoldfastError, Secret, get_log
from holdfast.lab.context import PoolCore
from holdfast.lab.errors import ApiFailure
from holdfast.lab.faults import FAULT_KINDS, ArmedFault, FaultUnknown
from holdfast.lab.http import Connection, Request
from holdfast.lab.volumes import disk_uuid
from holdfast.model import JsonObject, JsonValue

__all__ = ["OUR_MARK", "ControlServer"]

OUR_MARK = "holdfast"
"""What names or tags carry that a backup of ours left on the pool."""

_BODY_BYTES_MAX = 1 << 20
_CLASSES_SEARCHED = ("VM", "VDI", "VBD", "VIF", "task", "network")

log = get_log(__name__)

Verb = Callable[[JsonObject], JsonValue]


class ControlServer:
    """Answers the verbs of the side channel."""

    def __init__(self, pool: PoolCore, token: Secret, stop: Callable[[], None]) -> None:
        self._pool = pool
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
            "attachments": self._attachments,
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
        try:
            asked = json.loads(body or b"{}")
            if not isinstance(asked, dict):
                raise ValueError("the body is no object")
            _answer(connection, "200 OK", {"result": verb(asked)})
        except (ApiFailure, FaultUnknown, HoldfastError, KeyError, TypeError, ValueError) as refusal:
            _answer(connection, "400 Bad Request", {"error": str(refusal) or repr(refusal)})
        return True

    # -- verbs

    def _status(self, asked: JsonObject) -> JsonValue:
        db = self._pool.db
        vms = [row for row in db.rows("VM") if not row.fields["is_control_domain"]]
        return {
            "vms": [
                {
                    "name": str(row.fields["name_label"]),
                    "uuid": str(row.fields["uuid"]),
                    "power_state": _power(row.fields),
                }
                for row in vms
                if not row.fields["is_a_snapshot"]
            ],
            "snapshots": sum(bool(row.fields["is_a_snapshot"]) for row in vms),
            "disks": db.count("VDI"),
            "sessions": db.count("session"),
            "tasks": db.count("task"),
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
        plain = {str(name): value for name, value in parameters.items() if isinstance(value, str | int | float)}
        count = asked.get("count", 1)
        if not isinstance(count, int):
            raise TypeError("count is no whole number")
        return _fault_json(self._pool.faults.arm(str(asked["name"]), count=count, **plain))

    def _fault_clear(self, asked: JsonObject) -> JsonValue:
        return self._pool.faults.clear(str(asked.get("name") or ""))

    def _fault_list(self, asked: JsonObject) -> JsonValue:
        return [_fault_json(fault) for fault in self._pool.faults.armed()]

    def _fault_kinds(self, asked: JsonObject) -> JsonValue:
        return [
            {"name": kind.name, "summary": kind.summary, "parameters": dict(kind.parameters)}
            for kind in FAULT_KINDS.values()
        ]

    def _ours(self, asked: JsonObject) -> JsonValue:
        """List what carries our mark: what a backup must not leave behind."""
        found: list[JsonValue] = []
        for cls in _CLASSES_SEARCHED:
            for row in self._pool.db.rows(cls):
                label = str(row.fields.get("name_label", ""))
                marks = json.dumps([label, row.fields.get("other_config", {})]).lower()
                if OUR_MARK in marks:
                    found.append({"class": cls, "uuid": str(row.fields["uuid"]), "name": label})
        return found

    def _attachments(self, asked: JsonObject) -> JsonValue:
        """List the disks that the control domain has attached now."""
        db = self._pool.db
        vbds = db.texts("VM", self._pool.control_domain_ref, "VBDs")
        return [disk_uuid(self._pool, db.text("VBD", vbd, "VDI")) for vbd in vbds]

    def _restart_toolstack(self, asked: JsonObject) -> JsonValue:
        """Forget sessions and tasks at once, as a restart of the management daemon does."""
        with self._pool.db.transaction():
            self._pool.tasks.destroy_all()
            self._pool.sessions.close_all()
        return None

    def _stop_lab(self, asked: JsonObject) -> JsonValue:
        self._stop()
        return None


def _power(fields: dict[str, object]) -> str:
    return str(fields["power_state"])


def _fault_json(fault: ArmedFault) -> JsonObject:
    return {"id": fault.id, "name": fault.name, "remaining": fault.remaining, "parameters": dict(fault.parameters)}


def _answer(connection: Connection, status: str, document: JsonObject) -> None:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.send(head.encode() + body)
