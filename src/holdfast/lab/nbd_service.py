"""The pool's side of its NBD server: which network allows what, whose session may read which disk, and the VBD."""

from __future__ import annotations

from holdfast.core import HoldfastError, get_log
from holdfast.lab.attachments import attach_to_control_domain, detach_from_control_domain
from holdfast.lab.certificate import new_certificate
from holdfast.lab.context import PoolCore
from holdfast.lab.errors import ApiFailure
from holdfast.lab.faults import ArmedFault
from holdfast.lab.nbd import NbdExport, NbdFault, NbdMode, parse_export_name
from holdfast.lab.volumes import disk_uuid

__all__ = ["NbdService", "spoil_nbd_info"]

log = get_log(__name__)


class NbdService:
    """What an ``NbdServer`` asks, answered from the pool. Safe to use from any thread."""

    def __init__(self, pool: PoolCore) -> None:
        self._pool = pool

    def mode(self) -> NbdMode:
        """Return what the pool's networks allow now."""
        db = self._pool.db
        purposes = {purpose for row in db.rows("network") for purpose in db.texts("network", row.ref, "purpose")}
        match "nbd" in purposes, "insecure_nbd" in purposes:
            case True, False:
                return NbdMode.TLS
            case False, True:
                return NbdMode.PLAIN
            case _:
                return NbdMode.CLOSED

    def resolve(self, name: str) -> NbdExport | None:
        """Return the disk of an export name, attached to the control domain; None when session or disk is wrong, or
        the session's user may not attach disks."""
        parsed = parse_export_name(name)
        if parsed is None:
            return None
        uuid, session = parsed
        pool = self._pool
        if not pool.sessions.is_valid(session) or not pool.db.has_uuid("VDI", uuid):
            log.info("lab.nbd-refused", disk=uuid, reason="the session is not valid, or there is no such disk")
            return None
        vdi = pool.db.by_uuid("VDI", uuid)
        try:
            for permission in ("vbd.create", "vbd.plug"):
                pool.sessions.rbac.check(pool.db, session, permission)
            vbd = attach_to_control_domain(pool, vdi, is_writable=False)
            log.debug("lab.nbd-attached", disk=uuid)
            return _Export(pool, disk_uuid(pool, vdi), vbd)
        except (ApiFailure, HoldfastError) as refusal:
            log.info("lab.nbd-refused", disk=uuid, reason=str(refusal))
            return None

    def admits(self) -> bool:
        """Whether a new connection is taken."""
        return self._pool.faults.take("nbd-busy") is None

    def fault(self, *, sent_bytes: int, length_bytes: int) -> NbdFault | None:
        """Return what goes wrong in the next piece of data."""
        for name in ("nbd-stalls", "nbd-disconnects"):
            for fault in self._armed(name):
                if not _is_due(fault, sent_bytes, length_bytes) or not self._pool.faults.take_this(fault):
                    continue
                first_bytes = max(0, fault.number("after_bytes") - sent_bytes)
                if name == "nbd-stalls":
                    return NbdFault(sent_first_bytes=first_bytes, stall_s=fault.seconds())
                return NbdFault(sent_first_bytes=first_bytes, disconnects=True)
        return self._slowness(length_bytes)

    def _slowness(self, length_bytes: int) -> NbdFault | None:
        for fault in self._armed("nbd-slow"):
            return NbdFault(sent_first_bytes=0, stall_s=length_bytes / max(1, fault.number("bytes_per_s")))
        return None

    def _armed(self, name: str) -> list[ArmedFault]:
        return [fault for fault in self._pool.faults.armed() if fault.name == name]


def _is_due(fault: ArmedFault, sent_bytes: int, length_bytes: int) -> bool:
    return sent_bytes + length_bytes > fault.number("after_bytes")


_NOBODYS_PORT = 1
"""A port of old that no machine listens on today."""


def spoil_nbd_info(pool: PoolCore, infos: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return what a client is told of where a disk can be read, as wrong as the armed faults say."""
    faults = pool.faults
    wrong: dict[str, object] = {}
    if faults.take("nbd-unreachable"):
        wrong["port"] = _NOBODYS_PORT
    if faults.take("nbd-certificate-wrong"):
        certificate, _ = new_certificate(name=pool.certificate_subject, addresses=[], clock=pool.clock)
        wrong["cert"] = certificate.decode("ascii")
    fault = faults.take("nbd-subject-wrong")
    if fault is not None:
        wrong["subject"] = fault.text("subject")
    return [{**info, **wrong} for info in infos]


class _Export:
    """One disk, attached to the control domain for one connection."""

    def __init__(self, pool: PoolCore, uuid: str, vbd: str) -> None:
        self._pool = pool
        self._uuid = uuid
        self._vbd = vbd
        self._size_bytes = pool.disks.size_bytes(uuid)

    @property
    def size_bytes(self) -> int:
        """See ``NbdExport.size_bytes``."""
        return self._size_bytes

    def read_into(self, offset_bytes: int, view: memoryview) -> None:
        """See ``NbdExport.read_into``."""
        self._pool.disks.read_into(self._uuid, offset_bytes, view)

    def close(self) -> None:
        """See ``NbdExport.close``: the disk is detached, which takes its usual moment."""
        detach_from_control_domain(self._pool, self._vbd)
