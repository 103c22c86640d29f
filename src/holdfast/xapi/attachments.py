"""What the control domain holds of a disk: attachments that an export, an import or an NBD connection left behind.

Invariant: only attachments to a control domain are taken away; those of a VM never are.
"""

from __future__ import annotations

from holdfast.core import HoldfastError, get_log
from holdfast.model import DiskUuid, JsonObject
from holdfast.xapi.calls import Calls
from holdfast.xapi.catalogue import ObjectGone
from holdfast.xapi.errors import PoolFailure
from holdfast.xapi.records import NULL_REF, flag, refs, text
from holdfast.xapi.retry import REMOVAL_RULES
from holdfast.xapi.tasks import call_async

__all__ = ["detach_disk", "release_disk"]

_log = get_log(__name__)


def detach_disk(calls: Calls, disk: DiskUuid) -> None:
    """Take a disk away from the control domain, waiting while it is used there; nothing to take is fine. Safe twice.

    Raises the pool's refusal when the control domain does not let go.
    """
    ref = calls.try_ref("VDI", disk)
    if ref is not None:
        calls.patiently(lambda: _take_away_all(calls, ref), rules=REMOVAL_RULES)


def _take_away_all(calls: Calls, disk_ref: str) -> None:
    for vbd_ref, vbd in _held(calls, disk_ref):
        _take_away(calls, vbd_ref, vbd)


def release_disk(calls: Calls, disk_ref: str) -> None:
    """Take a disk away from the control domain where an export has left it attached.

    A VBD that is still being used refuses to be unplugged and is left; the next attempt finds it gone.
    """
    for vbd_ref, vbd in _held(calls, disk_ref):
        try:
            _take_away(calls, vbd_ref, vbd)
        except HoldfastError as failure:
            _log.info("pool.attachment-kept", vbd=text(vbd, "uuid"), why=str(failure))


def _held(calls: Calls, disk_ref: str) -> list[tuple[str, JsonObject]]:
    """Return the control domain's VBDs of the disk."""
    record = calls.try_record("VDI", disk_ref)
    held: list[tuple[str, JsonObject]] = []
    for vbd_ref in refs(record, "VBDs") if record is not None else []:
        vbd = calls.try_record("VBD", vbd_ref)
        vm = calls.try_record("VM", text(vbd, "VM", NULL_REF)) if vbd is not None else None
        if vbd is not None and vm is not None and flag(vm, "is_control_domain"):
            held.append((vbd_ref, vbd))
    return held


def _take_away(calls: Calls, vbd_ref: str, vbd: JsonObject) -> None:
    _log.info("pool.leaked-attachment", vbd=text(vbd, "uuid"))
    try:
        if flag(vbd, "currently_attached"):
            _unplug(calls, vbd_ref)
        call_async(calls, "VBD.destroy", vbd_ref, rules=())
    except ObjectGone as gone:
        if vbd_ref not in gone.xapi_text:
            raise


def _unplug(calls: Calls, vbd_ref: str) -> None:
    try:
        call_async(calls, "VBD.unplug", vbd_ref, rules=())
    except PoolFailure as failure:
        # The host let go of it by itself since we looked.
        if failure.xapi_code != "DEVICE_ALREADY_DETACHED":
            raise
