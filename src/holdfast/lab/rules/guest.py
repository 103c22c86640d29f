"""What a guest can do, as its tools said it: everything that depends on drivers inside the VM.

Invariant: a guest that said nothing can do nothing.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.database import Database, Fields, Row

__all__ = ["booted_paravirtual", "cannot_suspend_reason", "has_feature", "has_tools", "hotplug_refusal"]

_CANNOT_SUSPEND = "data-cant-suspend-reason"


def has_tools(metrics: Row | None) -> bool:
    """Whether the guest named its drivers; such a guest can do everything."""
    if metrics is None:
        return False
    version = cast("dict[str, str]", metrics.fields["PV_drivers_version"])
    return all(version.get(part, "").isdigit() for part in ("major", "minor"))


def has_feature(metrics: Row | None, feature: str) -> bool:
    """Whether the guest says that it can do this one thing."""
    return metrics is not None and cast("dict[str, str]", metrics.fields["other"]).get(feature) == "1"


def cannot_suspend_reason(metrics: Row | None) -> str | None:
    """Return why the guest must not be suspended, when it says so."""
    return None if metrics is None else cast("dict[str, str]", metrics.fields["other"]).get(_CANNOT_SUSPEND)


def booted_paravirtual(db: Database, fields: Fields) -> bool:
    """Whether the VM runs without emulated hardware, so that its kernel must have all drivers."""
    metrics = db.find("VM_metrics", str(fields["metrics"]))
    return metrics is not None and metrics.fields["current_domain_type"] in ("pv", "pv_in_pvh", "pvh")


def hotplug_refusal(db: Database, fields: Fields, *, vm: str, field: str, kind: str) -> tuple[str, ...] | None:
    """Return the error that plugging devices into a running VM gives; None when its guest can cope."""
    if fields["domain_type"] != "hvm":
        return None
    metrics = db.find("VM_guest_metrics", str(fields["guest_metrics"]))
    if metrics is not None:
        claim = metrics.fields[field]
        if claim == "yes" or (claim == "unspecified" and metrics.fields["PV_drivers_detected"]):
            return None
        if claim == "no":
            return ("OPERATION_NOT_ALLOWED", f"VM states it does not support {kind} hotplug.")
    return None if has_tools(metrics) else ("VM_MISSING_PV_DRIVERS", vm)
