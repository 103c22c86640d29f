"""How fast the lab pool answers: raw and VHD exports, NBD plain and with TLS, VM exports, calls, and a fleet's start.

The client is a bare socket that throws away what it reads, so that the lab is measured and no client; both share the
machine's cores. Beside each figure stands that of a real pool's host on a like machine, where there is one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import XenAPI

from holdfast.core import MIB, Cancellation, Secret, SystemClock
from holdfast.lab import LabHandle, LabOptions, spawn_lab

__all__ = ["measure_lab"]

_DISK_BYTES = 2048 * MIB
_PIECE_BYTES = 4 * MIB
_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC, _REPLY_BYTES = 0x25609513, 16
_CALLS_S = 1.0
_PASSWORD = "benchmark"  # of a lab that listens on this machine only, for a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement: what, how much in which unit, and a real host's beside it."""

    name: str
    value: float
    unit: str
    real: str = ""


def measure_lab(*, rounds: int, folder: Path) -> str:
    """Return a Markdown table of medians over ``rounds``, each on labs of its own."""
    figures: list[Figure] = []
    for _ in range(rounds):
        for nbd in ("plain", "tls"):
            with _lab(folder, scenario="empty", nbd=nbd) as lab:
                figures += _transfers(lab, nbd=nbd)
        figures += _fleet(folder)
    return _table(figures)


@contextmanager
def _lab(folder: Path, *, scenario: str, nbd: str = "none") -> Iterator[LabHandle]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = LabOptions(
        state_dir=folder / "lab",
        scenario=scenario,
        nbd="tls" if nbd == "tls" else "plain" if nbd == "plain" else "none",
        password=Secret(_PASSWORD),
        witness=False,
    )
    lab = spawn_lab(options, clock=SystemClock(), cancel=Cancellation())
    try:
        yield lab
    finally:
        lab.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _transfers(lab: LabHandle, *, nbd: str) -> list[Figure]:
    session = XenAPI.Session(lab.plain_url)
    session.xenapi.login_with_password(lab.user, _PASSWORD, "1.0", "bench")
    vdi = _full_disk(session, lab)
    info = session.xenapi.VDI.get_nbd_info(vdi)[0]
    found = [_figure(f"NBD, {'TLS' if nbd == 'tls' else 'plain'}", lambda: _read_nbd(info, is_encrypted=nbd == "tls"))]
    if nbd == "tls":
        return found
    query = f"session_id={session._session}&vdi={vdi}"
    vm = _machine(session, vdi)
    found += [
        _figure("`/export_raw_vdi`, raw", lambda: _drain(lab, f"/export_raw_vdi?{query}&format=raw")),
        _figure("`/export_raw_vdi`, VHD", lambda: _drain(lab, f"/export_raw_vdi?{query}&format=vhd")),
        _figure("`/export`", lambda: _drain(lab, f"/export?session_id={session._session}&ref={vm}")),
        Figure(name="`VM.get_name_label`, one after the other", value=_calls_per_s(session), unit="calls/s"),
    ]
    return found


def _figure(name: str, transfer: Callable[[], int]) -> Figure:
    start_s = time.perf_counter()
    moved_bytes = transfer()
    return Figure(
        name=name, value=moved_bytes / 1e6 / (time.perf_counter() - start_s), unit="MB/s", real=_REAL.get(name, "")
    )


_REAL = {"NBD, plain": "1200 MB/s", "`/export_raw_vdi`, VHD": "500 MB/s", "`/export`": "550 MB/s"}
"""A host of the pool's own software on a development machine, plain HTTP, plain images in the page cache."""


def _full_disk(session: XenAPI.Session, lab: LabHandle) -> str:
    """Return a disk of which every byte was written."""
    (pool,) = session.xenapi.pool.get_all_records().values()
    record = {"name_label": "full", "SR": pool["default_SR"], "virtual_size": str(_DISK_BYTES), "type": "user"}
    vdi = str(session.xenapi.VDI.create({**record, "sharable": False, "read_only": False, "other_config": {}}))
    piece = os.urandom(_PIECE_BYTES)
    head = f"PUT /import_raw_vdi?session_id={session._session}&vdi={vdi}&format=raw HTTP/1.0\r\n"
    with _connect(lab) as connection:
        connection.sendall(f"{head}Content-Length: {_DISK_BYTES}\r\n\r\n".encode())
        for _ in range(_DISK_BYTES // _PIECE_BYTES):
            connection.sendall(piece)
        while connection.recv(65536):
            pass
    return vdi


def _machine(session: XenAPI.Session, vdi: str) -> str:
    """Return a halted VM with that disk."""
    api = session.xenapi
    control = next(vm for vm in api.VM.get_all_records().values() if vm["is_control_domain"])
    halted = {"name_label": "full", "is_a_template": False, "power_state": "Halted", "domain_type": "hvm"}
    vm = str(api.VM.create({**control, **halted, "affinity": "OpaqueRef:NULL", "HVM_boot_policy": "BIOS order"}))
    attachment = {"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk"}
    fixed = {"empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    api.VBD.create({**attachment, **fixed, "unpluggable": True})
    return vm


def _connect(lab: LabHandle) -> socket.socket:
    host, _, port = lab.plain_url.partition("//")[2].partition(":")
    return socket.create_connection((host, int(port)))


def _drain(lab: LabHandle, path: str) -> int:
    """Read the answer and return its length; what comes after the last byte is waiting, and not counted."""
    buffer = memoryview(bytearray(_PIECE_BYTES))
    moved_bytes = 0
    with _connect(lab) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        while moved_bytes < _DISK_BYTES and (count := connection.recv_into(buffer)):
            moved_bytes += count
    return moved_bytes


def _read_nbd(info: dict[str, str], *, is_encrypted: bool) -> int:
    connection = socket.create_connection((info["address"], int(info["port"])))
    _receive(connection, 18)
    connection.sendall(struct.pack(">I", 1))
    if is_encrypted:
        connection.sendall(b"IHAVEOPT" + struct.pack(">II", 5, 0))
        _receive(connection, 20)
        context = ssl.create_default_context(cadata=info["cert"])
        connection = context.wrap_socket(connection, server_hostname=info["subject"])
    name = info["exportname"].encode()
    connection.sendall(b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
    _receive(connection, 8 + 2 + 124)
    buffer = memoryview(bytearray(_REPLY_BYTES + _PIECE_BYTES))
    with connection:
        for offset in range(0, _DISK_BYTES, _PIECE_BYTES):
            connection.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, 0, 1, offset, _PIECE_BYTES))
            _fill(connection, buffer)
    return _DISK_BYTES


def _receive(connection: socket.socket, length_bytes: int) -> None:
    _fill(connection, memoryview(bytearray(length_bytes)))


def _fill(connection: socket.socket, view: memoryview) -> None:
    while len(view):
        count = connection.recv_into(view)
        if not count:
            raise ConnectionError("the lab hung up")
        view = view[count:]


def _calls_per_s(session: XenAPI.Session) -> float:
    vm = session.xenapi.VM.get_all()[0]
    start_s, calls = time.perf_counter(), 0
    while (took_s := time.perf_counter() - start_s) < _CALLS_S:
        session.xenapi.VM.get_name_label(vm)
        calls += 1
    return calls / took_s


def _fleet(folder: Path) -> list[Figure]:
    start_s = time.perf_counter()
    with _lab(folder, scenario="fleet") as lab:
        found = [Figure(name="start of `fleet`, two pools", value=time.perf_counter() - start_s, unit="s")]
        session = XenAPI.Session(lab.plain_url)
        session.xenapi.login_with_password(lab.user, _PASSWORD, "1.0", "bench")
        token = session._session
        parameter = f"<param><value>{token}</value></param>"
        call = f"<methodName>VM.get_all_records</methodName><params>{parameter}</params>"
        text = f"<methodCall>{call}</methodCall>".encode()
        body = json.dumps({"jsonrpc": "2.0", "method": "VM.get_all_records", "params": [token], "id": 1}).encode()
        wishes = json.dumps({"jsonrpc": "2.0", "method": "event.from", "params": [token, ["*"], "", 5.0], "id": 1})
        for name, path, document in (
            ("`VM.get_all_records` of 1,000 VMs, XML", "/", text),
            ("`VM.get_all_records` of 1,000 VMs, JSON", "/jsonrpc", body),
            ("`event.from` of the whole pool, JSON", "/jsonrpc", wishes.encode()),
        ):
            found.append(Figure(name=name, value=_ask(lab, path, document), unit="s"))
        found.append(Figure(name="memory of the lab with `fleet`", value=_rss_mib(lab.pid), unit="MiB"))
        return found


def _ask(lab: LabHandle, path: str, document: bytes) -> float:
    """Return how long the answer takes to its last byte."""
    with _connect(lab) as connection:
        start_s = time.perf_counter()
        connection.sendall(f"POST {path} HTTP/1.0\r\nContent-Length: {len(document)}\r\n\r\n".encode() + document)
        while connection.recv(1 << 20):
            pass
        return time.perf_counter() - start_s


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / MIB


def _table(figures: list[Figure]) -> str:
    lines = ["| what | n | lab | a real host |", "| --- | --- | --- | --- |"]
    for name in dict.fromkeys(figure.name for figure in figures):
        mine = [figure for figure in figures if figure.name == name]
        median = statistics.median(figure.value for figure in mine)
        shown = f"{median:.2f}" if median < 100 else f"{median:.0f}"
        lines.append(f"| {name} | {len(mine)} | {shown} {mine[0].unit} | {mine[0].real} |")
    return "\n".join(lines)
