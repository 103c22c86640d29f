"""Calls that set up a host: its name, power, display, caching and such, each with the rule that guards it."""

from __future__ import annotations

import re
from collections.abc import Callable

from holdfast.lab.context import CallSet, Context
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import driver_features

__all__ = ["calls"]

calls = CallSet()

Map = dict[str, str]

_HOSTNAME = re.compile(r"[A-Za-z0-9.-]+")
_HOSTNAME_LENGTH_MAX = 255

# -- names


@calls.on("host.set_hostname_live")
def set_hostname_live(context: Context, host: str, name: str) -> str:
    """Rename a host as the network knows it."""
    context.db.row("host", host)
    if not name:
        raise ApiFailure("HOST_NAME_INVALID", "hostname empty")
    if len(name.encode()) > _HOSTNAME_LENGTH_MAX:
        raise ApiFailure("HOST_NAME_INVALID", "hostname is too long")
    if not _HOSTNAME.fullmatch(name) or name[0] == "-" or name[-1] == "-":
        raise ApiFailure("HOST_NAME_INVALID", "hostname contains invalid characters")
    context.db.set("host", host, "hostname", name)
    return ""


# -- fields that are kept twice


def _mirrored(context: Context, host: str, name: str, value: object, spelled: str) -> str:
    db = context.db
    with db.transaction():
        db.set("host", host, name, value)
        db.put_key("host", host, "other_config", key=name, value=spelled)
    return ""


@calls.on("host.set_iscsi_iqn")
def set_iscsi_iqn(context: Context, host: str, value: str) -> str:
    """Set the host's iSCSI name; older clients read it in ``other_config``."""
    if not value:
        raise ApiFailure("INVALID_VALUE", "value", value)
    return _mirrored(context, host, "iscsi_iqn", value, value)


@calls.on("host.set_multipathing")
def set_multipathing(context: Context, host: str, value: bool) -> str:
    """Say whether storage is reached over several paths; older clients read it in ``other_config``."""
    return _mirrored(context, host, "multipathing", value, "true" if value else "false")


# -- power, processor, display


@calls.on("host.set_power_on_mode")
def set_power_on_mode(context: Context, host: str, mode: str, config: Map) -> str:
    """Say how the host can be switched on; passwords of the old way are forgotten."""
    db = context.db
    with db.transaction():
        old = db.mapping("host", host, "power_on_config")
        db.update("host", host, {"power_on_mode": mode, "power_on_config": config})
        for key, uuid in old.items():
            if key.endswith("password_secret") and db.has_uuid("secret", uuid):
                db.destroy("secret", db.by_uuid("secret", uuid))
    return ""


@calls.on("host.set_max_cstate")
def set_max_cstate(context: Context, host: str, value: str) -> str:
    """Limit how deep idle processors sleep."""
    context.db.row("host", host)
    if value and not re.fullmatch(r"\d+(,\d+)?", value):
        raise ApiFailure("INVALID_VALUE", "max_cstate", value)
    if value and int(value.partition(",")[0]) > 1:
        text = "Only C0, C1 and unlimited are supported for max-cstate"
        raise ApiFailure("VALUE_NOT_SUPPORTED", "max_cstate", value, text)
    context.db.set("host", host, "max_cstate", value)
    return ""


@calls.on("host.set_sched_gran")
def set_sched_gran(context: Context, host: str, value: str) -> str:
    """Refused unless a host's own settings allow it."""
    context.db.row("host", host)
    raise ApiFailure("OPERATION_NOT_ALLOWED", "Disabled by xapi.conf")


@calls.on("host.get_sched_gran")
def get_sched_gran(context: Context, host: str) -> str:
    """Return what processors are given out by."""
    context.db.row("host", host)
    return "cpu"


_DISPLAY_ON = {"disable_on_reboot": "enabled", "disabled": "enable_on_reboot"}
_DISPLAY_OFF = {"enabled": "disable_on_reboot", "enable_on_reboot": "disabled"}


def _switch_display(context: Context, host: str, steps: Map) -> str:
    before = context.db.text("host", host, "display")
    after = steps.get(before, before)
    context.db.set("host", host, "display", after)
    return after


@calls.on("host.enable_display")
def enable_display(context: Context, host: str) -> str:
    """Let the host's own screen show something, from the next start on."""
    return _switch_display(context, host, _DISPLAY_ON)


@calls.on("host.disable_display")
def disable_display(context: Context, host: str) -> str:
    """Give the host's screen to a VM, from the next start on."""
    context.db.row("host", host)
    if context.pool.is_restricted("integrated_gpu_passthrough"):
        raise ApiFailure("FEATURE_RESTRICTED")
    return _switch_display(context, host, _DISPLAY_OFF)


@calls.on("host.set_ssl_legacy")
def set_ssl_legacy(context: Context, host: str, value: bool) -> str:
    """Old TLS versions are gone: only switching them off is accepted."""
    if value:
        raise ApiFailure("VALUE_NOT_SUPPORTED", "value", "true", "Legacy SSL support has been removed")
    return ""


@calls.on("host.set_uefi_certificates")
def set_uefi_certificates(context: Context, host: str, value: str) -> str:
    """Refused: the pool sets them now."""
    text = "To set UEFI certificates use: `Pool.set_custom_uefi_certificates`"
    raise ApiFailure("OPERATION_NOT_ALLOWED", text)


# -- caching


@calls.on("host.enable_local_storage_caching")
def enable_local_storage_caching(context: Context, host: str, sr: str) -> str:
    """Let the host keep copies of shared disks in a repository of its own; only while it is disabled."""
    db = context.db
    _check_disabled(context, host)
    pbds = db.texts("SR", sr, "PBDs")
    if db.flag("SR", sr, "shared") or len(pbds) != 1 or "SR_SUPPORTS_LOCAL_CACHING" not in driver_features(db, sr):
        raise ApiFailure("SR_OPERATION_NOT_SUPPORTED")
    if db.text("PBD", pbds[0], "host") != host:
        raise ApiFailure("HOST_CANNOT_SEE_SR", host, sr)
    with db.transaction():
        disable_local_storage_caching(context, host)
        db.set("host", host, "local_cache_sr", sr)
        db.set("SR", sr, "local_cache_enabled", True)
    return ""


@calls.on("host.disable_local_storage_caching")
def disable_local_storage_caching(context: Context, host: str) -> str:
    """Keep no copies any more; only while the host is disabled."""
    db = context.db
    _check_disabled(context, host)
    with db.transaction():
        old = db.text("host", host, "local_cache_sr")
        db.set("host", host, "local_cache_sr", NULL_REF)
        if db.exists("SR", old):
            db.set("SR", old, "local_cache_enabled", False)
    return ""


def _check_disabled(context: Context, host: str) -> None:
    """Storage is changed over on a host that is disabled, has no VMs but its own, and no disks attached to that."""
    db = context.db
    if db.flag("host", host, "enabled"):
        raise ApiFailure("HOST_NOT_DISABLED")
    own = []
    for vm in db.texts("host", host, "resident_VMs"):
        if db.flag("VM", vm, "is_control_domain"):
            own += db.texts("VM", vm, "VBDs")
        elif db.text("VM", vm, "power_state") == "Running":
            raise ApiFailure("HOST_IN_USE", host, "vm", vm)
    for vbd in own:
        if db.flag("VBD", vbd, "currently_attached"):
            raise ApiFailure("HOST_IN_USE", host, "vbd", vbd)


@calls.on("pool.enable_local_storage_caching")
def enable_pool_local_storage_caching(context: Context, pool: str) -> str:
    """Let every host keep copies where it can; the hosts that cannot are named."""
    return _for_caching(context, "HOSTS_FAILED_TO_ENABLE_CACHING", lambda host: _first_cache(context, host))


def _first_cache(context: Context, host: str) -> None:
    db = context.db
    for pbd in db.texts("host", host, "PBDs"):
        sr = db.text("PBD", pbd, "SR")
        if not db.flag("SR", sr, "shared"):
            enable_local_storage_caching(context, host, sr)
            return
    raise ApiFailure("SR_OPERATION_NOT_SUPPORTED")


@calls.on("pool.disable_local_storage_caching")
def disable_pool_local_storage_caching(context: Context, pool: str) -> str:
    """Let no host keep copies; the hosts that cannot stop are named."""
    work = lambda host: disable_local_storage_caching(context, host)  # noqa: E731
    return _for_caching(context, "HOSTS_FAILED_TO_DISABLE_CACHING", work)


def _for_caching(context: Context, code: str, work: Callable[[str], object]) -> str:
    failed = []
    for row in context.db.rows("host"):
        try:
            work(row.ref)
        except ApiFailure:
            failed.append(row.ref)
    if failed:
        raise ApiFailure(code, *failed)
    return ""
