"""A lab process that is killed at any instant has lost nothing that it acknowledged."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
import XenAPI

from holdfast.core import Secret, SystemClock
from holdfast.lab import LabOptions, spawn_lab
from holdfast.lab.process import LabHandle
from tests.support.lab import PASSWORD, QUICK

DISK_BYTES = 2 << 20
ROUNDS = 3
WRITERS = 3

ENDS = (OSError, http.client.HTTPException, XenAPI.Failure)
"""What a client sees of a lab that is killed under it."""


@dataclass
class Disk:
    """What the lab said it has done with one disk. While a call is under way, what it changes is not known."""

    label: str
    content: bytes | None = bytes(DISK_BYTES)
    notes: dict[str, str] = field(default_factory=dict)
    is_gone: bool | None = False


class Writer:
    """One client that changes disks until the lab is gone, and keeps account of every acknowledgement."""

    def __init__(
        self, lab: LabHandle, disks: dict[str, Disk], random: Random, acknowledgements: threading.Semaphore
    ) -> None:
        self._lab = lab
        self._random = random
        self.disks = disks
        self.acknowledgements = acknowledgements
        session = XenAPI.Session(lab.plain_url)
        session.xenapi.login_with_password("root", PASSWORD, "1.0", "writer")
        self._session: str = session._session
        self._api = session.xenapi
        self._sr: str = self._api.pool.get_default_SR(self._api.pool.get_all()[0])

    def run(self) -> None:
        """Change things until the lab is gone."""
        actions: list[Callable[[], None]] = [self._create, self._rename, self._note, self._write, self._copy]
        with contextlib.suppress(*ENDS):
            while True:
                self._random.choice([*actions, self._note, self._destroy])()
                self.acknowledgements.release()

    def _create(self) -> None:
        label = f"disk {self._random.randrange(10**9)}"
        record = {"name_label": label, "name_description": "", "SR": self._sr, "virtual_size": str(DISK_BYTES)}
        flags: dict[str, Any] = {"sharable": False, "read_only": False, "other_config": {}}
        vdi = self._api.VDI.create({**record, "type": "user", **flags})
        self.disks[vdi] = Disk(label)

    def _choose(self) -> tuple[str, Disk]:
        if not any(disk.is_gone is False for disk in self.disks.values()):
            self._create()
        return self._random.choice([(ref, disk) for ref, disk in self.disks.items() if disk.is_gone is False])

    def _rename(self) -> None:
        vdi, disk = self._choose()
        before, label = disk.label, f"renamed {self._random.randrange(10**9)}"
        disk.label = ""
        self._api.VDI.set_name_label(vdi, label)
        assert before
        disk.label = label

    def _note(self) -> None:
        vdi, disk = self._choose()
        key = f"k{self._random.randrange(10**9)}"
        self._api.VDI.add_to_other_config(vdi, key, "noted")
        disk.notes[key] = "noted"

    def _write(self) -> None:
        vdi, disk = self._choose()
        disk.content, content = None, self._random.randbytes(DISK_BYTES)
        task = self._api.task.create("write", "")
        path = f"/import_raw_vdi?session_id={self._session}&vdi={vdi}&format=raw&task_id={task}"
        _exchange(self._lab, "PUT", path, content)
        # The answer's head comes before the data is written; the task is what acknowledges.
        assert self._api.task.get_status(task) == "success"
        disk.content = content

    def _copy(self) -> None:
        vdi, disk = self._choose()
        copied = (disk.label, disk.content)
        snapshot = self._api.VDI.snapshot(vdi, {})
        self.disks[snapshot] = Disk(*copied, notes=dict(disk.notes))

    def _destroy(self) -> None:
        vdi, disk = self._choose()
        disk.is_gone = None
        self._api.VDI.destroy(vdi)
        disk.is_gone = True


def _exchange(lab: LabHandle, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    parts = urlsplit(lab.plain_url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _kill_at_work(lab: LabHandle, writers: list[Writer], wanted: int) -> None:
    """Let the writers work, and kill the lab when it has acknowledged so much, whatever it is doing just then."""
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    for _ in range(wanted):
        assert writers[0].acknowledgements.acquire(timeout=60)
    os.kill(lab.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert lab._is_gone_within(30, SystemClock())


def _check_all(lab: LabHandle, disks: dict[str, Disk]) -> None:
    session = XenAPI.Session(lab.plain_url)
    session.xenapi.login_with_password("root", PASSWORD, "1.0", "checker")
    records = session.xenapi.VDI.get_all_records()
    for vdi, disk in list(disks.items()):
        if disk.is_gone is not False:
            assert disk.is_gone is None or vdi not in records
            del disks[vdi]
            continue
        record = records[vdi]
        assert record["other_config"].items() >= disk.notes.items()
        assert record["name_label"] == (disk.label or record["name_label"])
        status, content = _exchange(lab, "GET", f"/export_raw_vdi?session_id={session._session}&vdi={vdi}&format=raw")
        assert status == 200
        assert content == (disk.content or content)
        disk.label, disk.content = record["name_label"], content
    session.xenapi.session.logout()


@pytest.mark.slow(reason="A lab process is killed and started anew, several times")
def test_a_killed_lab_has_everything_that_it_acknowledged(tmp_path: Path) -> None:
    random = Random(20261123)
    options = LabOptions(state_dir=tmp_path, scenario="empty", nbd="none", password=Secret(PASSWORD), delays=QUICK)
    accounts: list[dict[str, Disk]] = [{} for _ in range(WRITERS)]
    lab = spawn_lab(options)
    try:
        for _ in range(ROUNDS):
            told = threading.Semaphore(0)
            writers = [Writer(lab, disks, Random(random.randrange(10**9)), told) for disks in accounts]
            _kill_at_work(lab, writers, random.randrange(30, 120))
            lab = spawn_lab(options)
            for disks in accounts:
                _check_all(lab, disks)
    finally:
        lab.stop()
    assert any(disk.content != bytes(DISK_BYTES) for disks in accounts for disk in disks.values())
