"""Calls of the pool's own snapshot schedules (VMSS): what a schedule may say, and a snapshot right now.

The lab keeps schedules and does not follow them; only ``snapshot_now`` makes snapshots.
"""

from __future__ import annotations

from holdfast.lab.calls.common import check_licence
from holdfast.lab.calls.vm_copy import snapshot
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

Map = dict[str, str]

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MINUTES = ("0", "15", "30", "45")
_HOURS = range(24)

_DEFAULTS = {"min": "0", "hour": "0", "days": "Monday"}

_KEYS = {"hourly": ("min",), "daily": ("hour", "min"), "weekly": ("hour", "min", "days")}
"""What a schedule of each frequency says."""

_RETAINED_MAX = 10


def _check_licence(context: Context) -> None:
    check_licence(context, "vmss", "VMSS")


def _refused(key: str, value: str) -> ApiFailure:
    return ApiFailure("INVALID_VALUE", f"schedule:{key}", value)


def _accepted(key: str, value: str) -> str:
    """Return the value as it is stored; ``INVALID_VALUE`` when it is none."""
    if key == "min" and value in _MINUTES:
        return value
    if key == "hour":
        try:
            if int(value) in _HOURS:
                return value
        except ValueError as cause:
            raise _refused(key, value) from cause
    if key == "days":
        return _accepted_days(value)
    raise _refused(key, value)


def _accepted_days(text: str) -> str:
    days: list[str] = []
    for given in text.split(","):
        day = next((each for each in _DAYS if each.lower() == given.lower()), None)
        if day is None:
            raise _refused("days", given)
        if day in days:
            raise _refused("days", text)
        days.append(day)
    return ",".join(days)


def _schedule(frequency: str, given: Map) -> Map:
    """Return the schedule with exactly the keys of its frequency."""
    return {key: _accepted(key, given.get(key, _DEFAULTS[key])) for key in _KEYS[frequency]}


def _check_type(context: Context, kind: str) -> None:
    if kind == "snapshot_with_quiesce":
        check_licence(context, "vss", "VSS")


def _check_retained(count: int) -> None:
    if not 1 <= count <= _RETAINED_MAX:
        raise ApiFailure("INVALID_VALUE", "retained_snapshots", str(count))


@calls.on("VMSS.create")
def create(context: Context, record: Fields) -> str:
    """Make a schedule; keys of another frequency are refused."""
    _check_licence(context)
    _check_type(context, str(record["type"]))
    frequency = str(record["frequency"])
    given: Map = dict(record["schedule"])  # type: ignore[call-overload]
    for key, value in given.items():
        if key not in _KEYS[frequency]:
            raise _refused(key, value)
    schedule = _schedule(frequency, given)
    _check_retained(int(str(record["retained_snapshots"])))
    return context.db.create("VMSS", {**record, "schedule": schedule})


@calls.on("VMSS.destroy")
def destroy(context: Context, vmss: str) -> str:
    """Remove a schedule that no VM follows, and what was said about it."""
    _check_licence(context)
    db = context.db
    with db.transaction():
        if db.texts("VMSS", vmss, "VMs"):
            raise ApiFailure("VMSS_HAS_VM")
        uuid = db.text("VMSS", vmss, "uuid")
        for row in db.rows("message"):
            if row.fields["obj_uuid"] == uuid:
                db.destroy("message", row.ref)
        db.destroy("VMSS", vmss)
    return ""


@calls.on("VMSS.set_frequency")
def set_frequency(context: Context, vmss: str, frequency: str) -> str:
    """Change how often; the schedule gets the keys that belong to it."""
    _check_licence(context)
    schedule = _schedule(frequency, context.db.mapping("VMSS", vmss, "schedule"))
    context.db.update("VMSS", vmss, {"frequency": frequency, "schedule": schedule})
    return ""


@calls.on("VMSS.set_schedule")
def set_schedule(context: Context, vmss: str, schedule: Map) -> str:
    """Change when; keys that are not given stay."""
    _check_licence(context)
    merged = {**context.db.mapping("VMSS", vmss, "schedule"), **schedule}
    context.db.set("VMSS", vmss, "schedule", {key: _accepted(key, value) for key, value in merged.items()})
    return ""


@calls.on("VMSS.add_to_schedule")
def add_to_schedule(context: Context, vmss: str, key: str, value: str) -> str:
    """Add one key to when."""
    _check_licence(context)
    before = context.db.mapping("VMSS", vmss, "schedule")
    accepted = _accepted(key, value)
    if key in before:
        raise ApiFailure("MAP_DUPLICATE_KEY", "VMSS", "schedule", vmss, key)
    context.db.put_key("VMSS", vmss, "schedule", key=key, value=accepted)
    return ""


@calls.on("VMSS.remove_from_schedule")
def remove_from_schedule(context: Context, vmss: str, key: str) -> str:
    """Take one key out of when."""
    _check_licence(context)
    context.db.drop_key("VMSS", vmss, "schedule", key=key)
    return ""


@calls.on("VMSS.set_type")
def set_type(context: Context, vmss: str, kind: str) -> str:
    """Change the kind of snapshots."""
    _check_licence(context)
    _check_type(context, kind)
    context.db.set("VMSS", vmss, "type", kind)
    return ""


@calls.on("VMSS.set_retained_snapshots")
def set_retained_snapshots(context: Context, vmss: str, count: int) -> str:
    """Change how many snapshots are kept of each VM."""
    _check_licence(context)
    _check_retained(count)
    context.db.set("VMSS", vmss, "retained_snapshots", count)
    return ""


@calls.on("VMSS.set_last_run_time")
def set_last_run_time(context: Context, vmss: str, moment: str) -> str:
    """Note when the schedule was followed last."""
    _check_licence(context)
    context.db.set("VMSS", vmss, "last_run_time", moment)
    return ""


@calls.on("VMSS.snapshot_now")
def snapshot_now(context: Context, vmss: str) -> str:
    """Take a snapshot of every VM of the schedule now."""
    _check_licence(context)
    db = context.db
    label = db.text("VMSS", vmss, "name_label")
    for vm in db.texts("VMSS", vmss, "VMs"):
        made = snapshot(context, vm, f"{label}-{context.pool.now()}", [])
        db.set("VM", made, "is_vmss_snapshot", True)
    db.set("VMSS", vmss, "last_run_time", context.pool.now())
    return "True"
