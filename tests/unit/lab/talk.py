"""How tests talk to a lab: what it refused, how a task ended, raw requests, and tidying up."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import XenAPI

from holdfast.lab import RunningLab

__all__ = [
    "Answer",
    "converse",
    "converse_at",
    "discard",
    "ended",
    "fetch",
    "first_disk",
    "get_raw",
    "has_reported",
    "json_call",
    "new_disk",
    "put_raw",
    "refusal",
    "vm_named",
    "wait_until",
]


@dataclass(frozen=True)
class Answer:
    """What came back over plain HTTP, up to the end of the connection."""

    status: int
    headers: dict[str, str]
    body: bytes


def _address(lab: RunningLab) -> tuple[str, int]:
    parts = urlsplit(lab.plain_url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def fetch(lab: RunningLab, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Send one request over plain HTTP and read the answer to its end."""
    connection = http.client.HTTPConnection(*_address(lab), timeout=20)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def json_call(lab: RunningLab, method: str, *parameters: Any) -> dict[str, Any]:
    """Make one JSON-RPC 2.0 call without a client that would log in again by itself; return the whole answer."""
    document = {"jsonrpc": "2.0", "method": method, "params": list(parameters), "id": 1}
    answer: dict[str, Any] = json.loads(fetch(lab, "POST", "/jsonrpc", json.dumps(document).encode()).body)
    return answer


def converse(lab: RunningLab, sent: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes and return all that comes back until the lab closes or resets."""
    return converse_at(lab.plain_url, sent, half_close=half_close)


def converse_at(url: str, sent: bytes, *, half_close: bool = False) -> bytes:
    """Do the same with any host's plain address."""
    parts = urlsplit(url)
    received = bytearray()
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock:
        sock.sendall(sent)
        if half_close:
            # The lab may have answered and reset already.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        while True:
            try:
                part = sock.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            received += part
    return bytes(received)


def refusal(call: Callable[[], Any]) -> list[str]:
    """Return what the pool refused a call with."""
    with pytest.raises(XenAPI.Failure) as caught:
        call()
    details: list[str] = caught.value.details
    return details


def wait_until(lab: RunningLab, holds: Callable[[], bool]) -> None:
    """Return when it holds; looked at whenever something in the pool changes, and now and then."""
    for _ in range(1000):
        if holds():
            return
        with lab.pool.db.lock:
            lab.pool.db.changed.wait(0.02)
    raise AssertionError("it never came to hold")


def ended(lab: RunningLab, task: str) -> dict[str, Any]:
    """Return the record of a task when it has ended."""
    wait_until(lab, lambda: lab.pool.db.get("task", task, "status") not in ("pending", "cancelling"))
    return dict(lab.pool.db.row("task", task).fields)


def vm_named(api: Any, name: str) -> str:
    """Return the VM of that name that is no snapshot."""
    found = [vm for vm in api.VM.get_by_name_label(name) if not api.VM.get_is_a_snapshot(vm)]
    assert len(found) == 1
    vm: str = found[0]
    return vm


def has_reported(api: Any, vm: str) -> bool:
    """Whether the tools inside a VM's guest have told the pool about themselves."""
    metrics = api.VM.get_guest_metrics(vm)
    return metrics in api.VM_guest_metrics.get_all() and bool(api.VM_guest_metrics.get_PV_drivers_detected(metrics))


def first_disk(api: Any, vm: str) -> str:
    """Return the disk on device 0 of a VM."""
    for vbd in api.VM.get_VBDs(vm):
        if api.VBD.get_userdevice(vbd) == "0":
            disk: str = api.VBD.get_VDI(vbd)
            return disk
    raise AssertionError("the VM has no first disk")


def new_disk(api: Any, size_bytes: int, *, name: str = "made by a test") -> str:
    """Make an empty disk on the default repository."""
    sr = api.pool.get_default_SR(api.pool.get_all()[0])
    record = {
        "name_label": name,
        "name_description": "",
        "SR": sr,
        "virtual_size": str(size_bytes),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
    }
    disk: str = api.VDI.create(record)
    return disk


def discard(api: Any, snapshot: str) -> None:
    """Remove the snapshot of a VM with its disks."""
    disks = [api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(snapshot) if api.VBD.get_type(vbd) == "Disk"]
    api.VM.destroy(snapshot)
    for disk in disks:
        api.VDI.destroy(disk)


def get_raw(lab: RunningLab, session: Any, disk: str, **query: str) -> Answer:
    """Export a disk; the query says the format, a base, a task."""
    pairs = {"session_id": session._session, "vdi": disk, **query}
    return fetch(lab, "GET", "/export_raw_vdi?" + "&".join(f"{key}={value}" for key, value in pairs.items()))


def put_raw(lab: RunningLab, session: Any, disk: str, body: bytes, **query: str) -> bytes:
    """Import onto a disk; return all that the lab says."""
    pairs = {"session_id": session._session, "vdi": disk, **query}
    path = "/import_raw_vdi?" + "&".join(f"{key}={value}" for key, value in pairs.items())
    head = f"PUT {path} HTTP/1.1\r\nHost: lab\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return converse(lab, head + body, half_close=True)
