"""``LabControl``: the side channel of a lab from Python, for tests, demonstrations and the command line."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from holdfast.core import ExitStatus, HoldfastError, Retry, Secret
from holdfast.model import JsonObject, JsonValue

__all__ = ["FilesystemTold", "LabControl", "LabFailed", "LabRefused", "LabUnreachable"]

_TIMEOUT_S = 600.0
"""Hashing a large disk takes a while."""


class LabUnreachable(HoldfastError):
    """Nobody answers on the lab's side channel."""

    code = "lab.unreachable"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    effect = "Whether the lab did what it was asked is not known; no repository was touched."
    advice = "Look with 'holdfast lab status'; start the lab with 'holdfast lab start' when it does not run."

    def __init__(self, address: str, *, reason: str) -> None:
        super().__init__(f"the lab does not answer at {address}: {reason}")
        self.address, self.reason = address, reason


class LabRefused(HoldfastError):
    """The lab understood the request and refused it."""

    code = "lab.refused"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed in the lab."
    advice = "Correct the request as the message says."

    def __init__(self, reason: str) -> None:
        super().__init__(f"the lab refused: {reason}")
        self.reason = reason


class LabFailed(HoldfastError):
    """The lab began what it was asked and could not end it."""

    code = "lab.failed"
    effect = "The lab may have done a part of it; no repository was touched."
    advice = "Read 'holdfast lab logs'; when its disk is not full, please report this."

    def __init__(self, reason: str) -> None:
        super().__init__(f"the lab could not do it: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemTold:
    """What the lab says of a disk's file system. ``clean`` is None when nothing could judge."""

    found: bool
    """Whether the disk has a file system, or should have one."""
    clean: bool | None
    detail: str


class LabControl:
    """Talks to one lab. Every method opens a connection of its own, so any thread may use it."""

    def __init__(self, address: tuple[str, int], token: Secret) -> None:
        self.address = address
        self.token = token

    def call(self, verb: str, **arguments: JsonValue) -> JsonValue:
        """Return the answer to a verb. ``LabUnreachable``, ``LabRefused`` or ``LabFailed``."""
        host, port = self.address
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        headers = {"authorization": f"Bearer {self.token.reveal()}", "content-type": "application/json"}
        try:
            connection.request("POST", f"/{verb}", json.dumps(arguments), headers)
            response = connection.getresponse()
            answer = cast(JsonObject, json.loads(response.read()))
        except (OSError, http.client.HTTPException, ValueError) as cause:
            raise LabUnreachable(f"{host}:{port}", reason=str(cause)) from cause
        finally:
            connection.close()
        if response.status >= http.client.INTERNAL_SERVER_ERROR:
            raise LabFailed(str(answer["error"]))
        if "error" in answer:
            raise LabRefused(str(answer["error"]))
        return answer["result"]

    def status(self) -> JsonObject:
        """Return what is in the pool: VMs, how many per power state, counts of snapshots, disks, sessions and tasks."""
        return cast(JsonObject, self.call("status"))

    def sha256(self, disk: str) -> str:
        """Return the hash of a disk's whole content, holes as zeros; of a destroyed snapshot when it was witnessed."""
        return str(self.call("hash", disk=disk))

    def set_witness(self, *, enabled: bool) -> None:
        """Keep the data of snapshots that are destroyed from now on for ``sha256``, or not."""
        self.call("witness", enabled=enabled)

    def arm_fault(self, name: str, /, *, count: int | None = None, **parameters: str | int | float | bool) -> int:
        """See ``arm_fault_with``; return the fault's number."""
        return cast(int, self.arm_fault_with(name, parameters, count=count)["id"])

    def arm_fault_with(
        self, name: str, parameters: Mapping[str, str | int | float | bool], *, count: int | None = None
    ) -> JsonObject:
        """Let a fault happen ``count`` times (-1: until cleared); return it as it is armed. Numbers may come as text.

        Without a count it happens once, or lasts until cleared where that is its manner; an accident has happened on
        return. ``LabRefused`` for a fault or parameter that does not exist, and for a value of the wrong kind.
        """
        return cast(JsonObject, self.call("fault-arm", name=name, count=count, parameters=dict(parameters)))

    def clear_faults(self, *, name: str = "") -> int:
        """Disarm all faults, or those of one name; return how many."""
        return cast(int, self.call("fault-clear", name=name))

    def faults(self) -> list[JsonObject]:
        """Return what is armed."""
        return cast("list[JsonObject]", self.call("fault-list"))

    def fault_kinds(self) -> list[JsonObject]:
        """Return every fault there is, with its parameters and their defaults."""
        return cast("list[JsonObject]", self.call("fault-kinds"))

    def ours(self, *, mark: str = "holdfast") -> list[JsonObject]:
        """Return the pool's objects that carry a mark; after a backup there should be none but the references."""
        return cast("list[JsonObject]", self.call("ours", mark=mark))

    def leftovers(self, *, mark: str = "holdfast") -> list[str]:
        """Return, readable, what a finished backup must not leave behind; change metadata is not among it."""
        return cast("list[str]", self.call("leftovers", mark=mark))

    def start_vm(self, vm: str) -> None:
        """Start a halted VM, named by name or uuid. ``LabRefused`` with the pool's own refusal."""
        self.call("start-vm", vm=vm)

    def shut_down_vm(self, vm: str) -> None:
        """Shut a VM down, named by name or uuid. ``LabRefused`` with the pool's own refusal."""
        self.call("shut-down-vm", vm=vm)

    def work_guest(self, vm: str) -> list[str]:
        """Let the guest of a running VM do a day's work; return what it did, a sentence for each disk."""
        return cast("list[str]", self.call("work-guest", vm=vm))

    def change_files(self, disk: str, *, count: int, total_bytes: int) -> JsonObject:
        """Create, replace and delete files; return how many and how much."""
        return cast(JsonObject, self.call("change-files", disk=disk, count=count, total_bytes=total_bytes))

    def write_pages(self, disk: str, *, fraction: float) -> JsonObject:
        """Rewrite that share of the database's pages in scattered places; return how many and how much."""
        return cast(JsonObject, self.call("write-pages", disk=disk, fraction=fraction))

    def append_log(self, disk: str, *, length_bytes: int) -> JsonObject:
        """Append to the disk's log; return where and how much."""
        return cast(JsonObject, self.call("append-log", disk=disk, length_bytes=length_bytes))

    def start_writing(self, disk: str) -> None:
        """Let the guest write every few milliseconds until ``stop_writing``."""
        self.call("start-writing", disk=disk)

    def stop_writing(self, disk: str) -> JsonObject:
        """End the writing and return how many writes it was, and how much."""
        return cast(JsonObject, self.call("stop-writing", disk=disk))

    def check_filesystem(self, disk: str) -> FilesystemTold:
        """Return what a file system check says of the disk, which is only read."""
        told = cast(JsonObject, self.call("check-filesystem", disk=disk))
        return FilesystemTold(
            found=bool(told["found"]), clean=cast("bool | None", told["clean"]), detail=str(told["detail"])
        )

    def attachments(self) -> list[str]:
        """Return the disks that the control domain has attached now."""
        return cast("list[str]", self.call("attachments"))

    def advance(self, duration_s: float) -> str:
        """Let so much time pass in the pool at once, with all that it does meanwhile; return the time it is then."""
        return str(self.call("advance-clock", seconds=duration_s))

    def restart_toolstack(self, *, silent_s: float = 0.0) -> None:
        """Forget all sessions and tasks, as a restart of the pool's management daemon does, and answer nobody for so
        long."""
        self.call("restart-toolstack", seconds=silent_s)

    def stop(self) -> None:
        """End the lab."""
        self.call("stop")
