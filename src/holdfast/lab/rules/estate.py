"""What may be done with a host, and with the pool as a whole, now, and why not."""

from __future__ import annotations

from typing import cast

from holdfast.lab.database import Database, Row
from holdfast.lab.errors import ApiFailure

__all__ = [
    "allowed_host_operations",
    "allowed_pool_operations",
    "check_host_operation",
    "check_pool_operation",
]

_HOST_OPERATIONS = (
    "vm_migrate provision vm_resume enable evacuate vm_start shutdown reboot power_on apply_updates".split()
)
_BRINGS_VMS = frozenset({"provision", "vm_resume", "vm_migrate"})
_TAKES_VMS = frozenset({"evacuate", "reboot", "shutdown"})
_ENDS = {
    "reboot": ("shutdown", "apply_updates"),
    "shutdown": ("reboot", "apply_updates"),
    "apply_updates": ("reboot", "shutdown", "enable"),
    "provision": ("provision",),
}
"""Operations during which others cannot begin."""

_BLOCKING = {
    operation: f"{operation.upper()}_IN_PROGRESS"
    for operation in (
        "ha_enable ha_disable cluster_create designate_new_master tls_verification_enable configure_repositories "
        "sync_updates sync_bundle apply_updates"
    ).split()
}
"""Operations of the pool that let no other begin, with the refusal that names them."""

_WAITING = (
    "cert_refresh exchange_certificates_on_join exchange_ca_certificates_on_join copy_primary_host_certs eject "
    "get_updates exchange_crls_on_join"
).split()
"""Operations of the pool that others wait for."""


def allowed_host_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the host now, for its record."""
    return [operation for operation in _HOST_OPERATIONS if _host_refusal(db, row, operation) is None]


def check_host_operation(db: Database, host: str, operation: str) -> None:
    """Return when the operation may begin on the host now; the pool's refusal otherwise."""
    refusal = _host_refusal(db, db.row("host", host), operation)
    if refusal is not None:
        raise refusal


def _host_refusal(db: Database, row: Row, operation: str) -> ApiFailure | None:
    rivals = _TAKES_VMS if operation in _BRINGS_VMS else _BRINGS_VMS if operation in _TAKES_VMS else frozenset()
    for task, running in cast("dict[str, str]", row.fields["current_operations"]).items():
        if running in rivals or operation in _ENDS.get(running, ()):
            return ApiFailure("OTHER_OPERATION_IN_PROGRESS", "host", row.ref, running, task)
    if row.fields["enabled"] and operation in ("reboot", "shutdown", "apply_updates"):
        return ApiFailure("HOST_NOT_DISABLED")
    return _power_on_refusal(db, row) if operation == "power_on" else None


def _power_on_refusal(db: Database, row: Row) -> ApiFailure | None:
    metrics = db.find("host_metrics", str(row.fields["metrics"]))
    if metrics is not None and metrics.fields["live"]:
        return ApiFailure("HOST_IS_LIVE", row.ref)
    if not row.fields["power_on_mode"]:
        return ApiFailure("HOST_POWER_ON_MODE_DISABLED")
    return None


def allowed_pool_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the pool now, for its record."""
    return [operation for operation in (*_BLOCKING, *_WAITING) if _pool_refusal(db, row, operation) is None]


def check_pool_operation(db: Database, pool: str, operation: str) -> None:
    """Return when the operation may begin on the pool now; its refusal otherwise."""
    row = db.row("pool", pool)
    if row.fields["is_psr_pending"]:
        raise ApiFailure("POOL_SECRET_ROTATION_PENDING")
    refusal = _pool_refusal(db, row, operation)
    if refusal is not None:
        raise refusal


def _pool_refusal(db: Database, row: Row, operation: str) -> ApiFailure | None:
    current = cast("dict[str, str]", row.fields["current_operations"])
    blocking = next((each for each in _BLOCKING if each in current.values()), None)
    waiting = next(([each, task] for task, each in current.items() if each in _WAITING), [])
    if blocking is not None and operation in _BLOCKING:
        return ApiFailure(_BLOCKING[blocking])
    if blocking is not None or waiting:
        return ApiFailure("OTHER_OPERATION_IN_PROGRESS", "pool", row.ref, *waiting)
    if operation == "cluster_create" and db.count("Cluster"):
        return ApiFailure("CLUSTER_ALREADY_EXISTS")
    if not row.fields["ha_enabled"]:
        return ApiFailure("HA_NOT_ENABLED") if operation == "ha_disable" else None
    if operation in ("ha_enable", "tls_verification_enable"):
        return ApiFailure("HA_IS_ENABLED")
    if operation == "cluster_create":
        return ApiFailure("INCOMPATIBLE_CLUSTER_STACK_ACTIVE", str(row.fields["ha_cluster_stack"]))
    return None
