"""Accidents and states of a whole pool, carried out when the fault of that name is armed: restarts, crashes, failover,
storage that is unplugged, a clock or a certificate that is another one.

Invariant: what an accident leaves behind is a pool that goes on; nothing that was on a disk is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from holdfast.lab.calls import halt_vm
from holdfast.lab.clock import LabClock
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.faults import ArmedFault
from holdfast.lab.hosts import make_master, named_host, restart_toolstack
from holdfast.lab.http import HttpServer
from holdfast.lab.listening import HostDoors
from holdfast.lab.operations import Mark

__all__ = ["Disasters"]


class Disasters:
    """Carries out the faults of one running pool that do not wait for their place."""

    def __init__(
        self, pool: PoolCore, server: HttpServer, doors: Sequence[HostDoors], *, renew_certificate: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._server = server
        self._doors = doors
        self._unplugged: dict[int, list[str]] = {}
        self._offline: dict[int, list[str]] = {}
        faults = pool.faults
        faults.enact("toolstack-restarts", self._restart_toolstack)
        faults.enact("master-moves", self._move_master)
        faults.enact("host-crashes", self._crash_host)
        faults.enact("certificate-changes", lambda fault: renew_certificate())
        faults.enact("clock-skewed", self._skew_clock, end=self._unskew_clock)
        faults.enact("storage-detached", self._detach_storage, end=self._attach_storage)
        faults.enact("storage-unreachable", self._lose_storage, end=self._find_storage)
        pool.operations.on_begin = self._hold_operation

    # -- hosts

    def _restart_toolstack(self, fault: ArmedFault) -> None:
        restart_toolstack(self._pool)
        self._silence(self._pool.master_ref, fault.seconds())

    def _move_master(self, fault: ArmedFault) -> None:
        pool = self._pool
        old = pool.master_ref
        new = named_host(pool, fault.text("host"))
        if new is None:
            new = next((row.ref for row in pool.db.rows("host") if row.ref != old), None)
        if new is None or new == old:
            raise ValueError("no other host can become master; start the lab with two hosts or more")
        make_master(pool, new)
        self._silence(old, 0.0)

    def _crash_host(self, fault: ArmedFault) -> None:
        pool = self._pool
        host = named_host(pool, fault.text("host")) or pool.master_ref
        for row in pool.db.rows("VM"):
            is_guest = row.fields["resident_on"] == host and not row.fields["is_control_domain"]
            if is_guest and row.fields["power_state"] in ("Running", "Paused"):
                self._lose_vm(row.ref)
        if host == pool.master_ref:
            restart_toolstack(pool)
        for door in self._doors:
            if door.host == host:
                door.nbd.hang_up()
        self._silence(host, fault.seconds())

    def _lose_vm(self, vm: str) -> None:
        """Halt a VM as a power failure does: the change logs of its disks are in doubt, which is found out when it
        is started again."""
        pool, db = self._pool, self._pool.db
        for vbd in db.texts("VM", vm, "VBDs"):
            fields = db.row("VBD", vbd).fields
            vdi = str(fields["VDI"])
            is_written = fields["currently_attached"] and fields["mode"] == "RW" and vdi != NULL_REF
            if is_written and db.flag("VDI", vdi, "cbt_enabled"):
                pool.disks.break_log(db.text("VDI", vdi, "uuid"))
        halt_vm(Context(pool), vm)

    def _silence(self, host: str, duration_s: float) -> None:
        """Cut the host's connections, and let it answer nobody for so long."""
        if duration_s > 0:
            self._pool.silent_until_s[host] = self._pool.clock.monotonic_s() + duration_s
        addresses = {address for door in self._doors if door.host == host for address in door.addresses}
        self._server.abort_connections(addresses)

    # -- states

    def _skew_clock(self, fault: ArmedFault) -> None:
        self._clock.skew(fault.seconds() if fault.text("direction") == "ahead" else -fault.seconds())

    def _unskew_clock(self, fault: ArmedFault) -> None:
        self._clock.skew(-fault.seconds() if fault.text("direction") == "ahead" else fault.seconds())

    @property
    def _clock(self) -> LabClock:
        return self._pool.clock

    def _detach_storage(self, fault: ArmedFault) -> None:
        db = self._pool.db
        with db.transaction():
            meant = self._meant_storage(fault)
            pbds = [pbd for sr in meant for pbd in db.texts("SR", sr, "PBDs")]
            plugged = [pbd for pbd in pbds if db.flag("PBD", pbd, "currently_attached")]
            for pbd in plugged:
                db.set("PBD", pbd, "currently_attached", False)
            for sr in meant:
                db.touch("SR", sr)
        self._unplugged[fault.id] = plugged
        self._lose_storage(fault)

    def _attach_storage(self, fault: ArmedFault) -> None:
        db = self._pool.db
        self._find_storage(fault)
        with db.transaction():
            for pbd in self._unplugged.pop(fault.id, []):
                if db.exists("PBD", pbd):
                    db.set("PBD", pbd, "currently_attached", True)
                    db.touch("SR", db.text("PBD", pbd, "SR"))

    def _lose_storage(self, fault: ArmedFault) -> None:
        """Let whoever reads or writes a disk of the SR fail, in the middle of it, too."""
        db = self._pool.db
        vdis = [vdi for sr in self._meant_storage(fault) for vdi in db.texts("SR", sr, "VDIs")]
        self._offline[fault.id] = [db.text("VDI", vdi, "uuid") for vdi in vdis]
        self._pool.disks.set_offline(itertools.chain.from_iterable(self._offline.values()))

    def _find_storage(self, fault: ArmedFault) -> None:
        self._offline.pop(fault.id, None)
        self._pool.disks.set_offline(itertools.chain.from_iterable(self._offline.values()))

    def _meant_storage(self, fault: ArmedFault) -> list[str]:
        """Return the SRs that a fault names; without a name all that hold disks of VMs are meant."""
        wanted = fault.text("sr")
        found = [row.ref for row in self._pool.db.rows("SR") if _is_meant(row.fields, row.ref, wanted)]
        if not found:
            raise ApiFailure("HANDLE_INVALID", "SR", wanted)
        return found

    # -- operations

    def _hold_operation(self, marks: Sequence[Mark]) -> None:
        """Let the objects of an operation be busy with another one for a while, when a fault says so."""
        pool = self._pool
        operations = tuple(mark.operation for mark in marks)
        fault = pool.faults.take("operation-waits", operation=operations)
        if fault is None:
            return
        mark, rival = marks[-1], f"OpaqueRef:{pool.new_uuid()}"
        pool.db.put_key(mark.cls, mark.ref, "current_operations", key=rival, value=fault.text("busy_with"))

        def let_go() -> None:
            if pool.db.exists(mark.cls, mark.ref):
                pool.db.drop_key(mark.cls, mark.ref, "current_operations", key=rival)

        pool.chores.after(f"rival {rival}", fault.seconds(), let_go)


def _is_meant(fields: dict[str, object], ref: str, wanted: str) -> bool:
    if wanted:
        return wanted in (ref, fields["uuid"], fields["name_label"])
    return fields["content_type"] != "iso"
