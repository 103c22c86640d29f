"""Which format the pool keeps a disk in: XCP-ng 8.3 has qcow2 beside VHD, for disks above 2040 GiB and where wanted.

Invariant: a disk counts as qcow2 only when the pool says so; pools that know VHD alone never do.
"""

from __future__ import annotations

from holdfast.core import limits
from holdfast.model import DiskUuid, JsonObject
from holdfast.xapi.calls import Calls
from holdfast.xapi.records import refs, strings, text

__all__ = ["image_config", "is_kept_as_qcow2"]

_QCOW2 = "qcow2"
_FORMAT_KEYS = ("image-format", "vdi_type")
"""The second one is the LVM drivers' own, which a snapshot has from its first moment."""


def is_kept_as_qcow2(calls: Calls, record: JsonObject, *, source: DiskUuid | None = None) -> bool:
    """Return whether a disk's record says qcow2; for a snapshot that does not say, whether its ``source`` does."""
    named = _named_format(record)
    if named is None and source is not None:
        ref = calls.try_ref("VDI", source)
        of = calls.try_record("VDI", ref) if ref is not None else None
        named = _named_format(of) if of is not None else None
    return named == _QCOW2


def image_config(calls: Calls, sr: JsonObject, *, size_bytes: int) -> dict[str, str]:
    """Return the ``sm_config`` for a new disk: qcow2 for one that is too large for VHD, where the driver has it.

    Smaller ones are left to what the SR's owner prefers, and so is every disk where the driver does not say.
    """
    if size_bytes <= limits.VHD_DISK_BYTES_MAX:
        return {}
    drivers = [each for each in calls.table("SM").values() if text(each, "type") == text(sr, "type")]
    return {"image-format": _QCOW2} if drivers and _QCOW2 in refs(drivers[0], "supported_image_formats") else {}


def _named_format(record: JsonObject) -> str | None:
    config = strings(record, "sm_config")
    return next((config[key] for key in _FORMAT_KEYS if config.get(key)), None)
