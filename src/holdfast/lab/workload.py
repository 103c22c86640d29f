"""What the guests of running VMs do to their disks when asked to: change files, write pages, append, go on and on.

Invariant: only a guest that runs writes, one action at a time on each disk; background writers end with the lab.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import cast

from holdfast.core import MIB, HoldfastError, Retry, format_bytes
from holdfast.lab.context import PoolCore
from holdfast.lab.guests import BackgroundWriter, Guest, Written
from holdfast.lab.images import FilesystemReport, check_filesystem, open_volume

__all__ = ["FilesystemFound", "GuestNotRunning", "Workload"]

_FILES_CHANGED = 40
_FILES_CHANGED_BYTES = 6 * MIB
_PAGES_FRACTION = 0.005
_LOG_BYTES = MIB
_TINY_DISK_BYTES = 256 * MIB
_TINY_SHARE = 16
"""A small disk gets a sixteenth of the work, so that it does not fill up."""


class GuestNotRunning(HoldfastError):
    """The guest was asked to work but its VM does not run."""

    code = "lab.guest-not-running"
    retry = Retry.LATER
    effect = "Nothing was changed in the lab."
    advice = "Start the VM first: 'holdfast lab vm start'."

    def __init__(self, name: str, *, power_state: str) -> None:
        super().__init__(f"VM {name!r} is {power_state.lower()}, so its guest does nothing")
        self.name, self.power_state = name, power_state


class FilesystemFound:
    """What a check of a disk's file system said, and whether there should be one at all."""

    def __init__(self, report: FilesystemReport, *, is_expected: bool) -> None:
        self.report = report
        self.is_expected = is_expected


class Workload:
    """The guests of one lab. Safe to use from any thread."""

    def __init__(self, pool: PoolCore) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._guests: dict[str, Guest] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._writers: dict[str, BackgroundWriter] = {}

    def _guest(self, disk: str) -> tuple[Guest, threading.Lock]:
        with self._lock:
            if disk not in self._guests:
                self._guests[disk] = Guest(self._pool.disks, disk, entropy=self._pool.entropy)
                self._locks[disk] = threading.Lock()
            return self._guests[disk], self._locks[disk]

    def disks_of(self, vm_uuid: str) -> list[tuple[str, str]]:
        """Return uuid and name of each disk of a running VM. ``GuestNotRunning``."""
        db = self._pool.db
        vm = db.by_uuid("VM", vm_uuid)
        power_state = db.text("VM", vm, "power_state")
        if power_state != "Running":
            raise GuestNotRunning(db.text("VM", vm, "name_label"), power_state=power_state)
        vbds = [vbd for vbd in db.texts("VM", vm, "VBDs") if db.text("VBD", vbd, "type") == "Disk"]
        vbds.sort(key=lambda vbd: (len(db.text("VBD", vbd, "userdevice")), db.text("VBD", vbd, "userdevice")))
        vdis = [db.row("VDI", db.text("VBD", vbd, "VDI")).fields for vbd in vbds]
        return [(cast(str, vdi["uuid"]), cast(str, vdi["name_label"])) for vdi in vdis]

    def work(self, vm_uuid: str) -> list[str]:
        """Let the VM's guest do an ordinary day's work on each disk; return what it did, a sentence each."""
        told: list[str] = []
        for disk, name in self.disks_of(vm_uuid):
            if not any(True for _ in self._pool.disks.data_extents(disk)):
                told.append(f"{name}: nothing; the guest has not begun to use this disk")
                continue
            share = _TINY_SHARE if self._pool.disks.size_bytes(disk) <= _TINY_DISK_BYTES else 1
            guest, lock = self._guest(disk)
            with lock:
                files = guest.change_files(max(4, _FILES_CHANGED // share), _FILES_CHANGED_BYTES // share)
                pages = guest.write_database_pages(_PAGES_FRACTION)
                log = guest.append_log(_LOG_BYTES // share)
            changes = f"{files.created} files created, {files.replaced} replaced, {files.deleted} deleted"
            told.append(
                f"{name}: {changes} ({format_bytes(files.written_bytes)}); {pages.pages} database pages "
                f"({format_bytes(pages.written_bytes)}); {format_bytes(log.written_bytes)} of log"
            )
        return told

    def change_files(self, disk: str, *, count: int, total_bytes: int) -> dict[str, int]:
        """Create, replace and delete files on one disk."""
        guest, lock = self._guest(disk)
        with lock:
            done = guest.change_files(count, total_bytes)
        return {
            "created": done.created,
            "replaced": done.replaced,
            "deleted": done.deleted,
            "written_bytes": done.written_bytes,
        }

    def write_pages(self, disk: str, *, fraction: float) -> dict[str, int]:
        """Rewrite that share of the database's pages on one disk, in scattered places."""
        guest, lock = self._guest(disk)
        with lock:
            done = guest.write_database_pages(fraction)
        return {"pages": done.pages, "written_bytes": done.written_bytes}

    def append_log(self, disk: str, *, length_bytes: int) -> dict[str, int]:
        """Append to the log on one disk."""
        guest, lock = self._guest(disk)
        with lock:
            done = guest.append_log(length_bytes)
        return {"position_bytes": done.position_bytes, "written_bytes": done.written_bytes}

    def start_writing(self, disk: str) -> None:
        """Let a guest write every few milliseconds until told to stop. Starting twice is harmless."""
        with self._lock:
            if disk not in self._writers:
                guest = Guest(self._pool.disks, disk, entropy=self._pool.entropy)
                self._writers[disk] = BackgroundWriter(guest, clock=self._pool.clock, turn=lambda: self._turn(disk))
                self._writers[disk].start()

    @contextlib.contextmanager
    def _turn(self, disk: str) -> Iterator[bool]:
        """Say whether the disk's guest may write, and let no VM change its state meanwhile."""
        with self._pool.db.lock:
            yield self._is_awake(disk)

    def _is_awake(self, disk: str) -> bool:
        """Whether a VM that runs has the disk: one that is paused, suspended or gone writes nothing."""
        db = self._pool.db
        if not db.has_uuid("VDI", disk):
            return False
        vbds = [db.row("VBD", vbd).fields for vbd in db.texts("VDI", db.by_uuid("VDI", disk), "VBDs")]
        vms = [db.find("VM", str(vbd["VM"])) for vbd in vbds if vbd["currently_attached"] and vbd["mode"] == "RW"]
        return any(vm is not None and vm.fields["power_state"] == "Running" for vm in vms)

    def stop_writing(self, disk: str) -> Written:
        """End the background writing and return what was written; nothing for a disk that nobody wrote."""
        with self._lock:
            writer = self._writers.pop(disk, None)
        return writer.stop() if writer is not None else Written(writes=0, written_bytes=0)

    def check(self, disk: str) -> FilesystemFound:
        """Return what a file system check says of the disk; the disk is only read."""
        report = check_filesystem(self._pool.disks, disk)
        try:
            is_expected = open_volume(self._pool.disks, disk).base_bytes is not None
        except HoldfastError:
            is_expected = True
        return FilesystemFound(report, is_expected=is_expected)

    def close(self) -> None:
        """End all background writing."""
        for disk in list(self._writers):
            self.stop_writing(disk)
