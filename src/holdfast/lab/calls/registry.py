"""Calls of what a pool merely keeps lists of: callers and their limits, controllers, devices.

The lab limits nobody and has no devices to give away, so these calls keep records and answer with what there is: mostly
nothing.
"""

from __future__ import annotations

import ipaddress

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()


# -- callers and their limits


@calls.on("Caller.create")
def create_caller(context: Context, record: Fields) -> str:
    """Know a caller by its program and address; who is known already gets a new name."""
    db = context.db
    if not record["user_agent"] and not record["client_ip"]:
        text = "at least one of user_agent or client_ip must be set"
        raise ApiFailure("INVALID_VALUE", "user_agent/client_ip", text)
    with db.transaction():
        for row in db.rows("Caller"):
            if all(row.fields[name] == record[name] for name in ("user_agent", "client_ip")):
                db.update("Caller", row.ref, {name: record[name] for name in ("name_label", "name_description")})
                return row.ref
        return db.create("Caller", record)


@calls.on("Caller.add_group")
def add_group(context: Context, caller: str, group: str) -> str:
    """Count a caller to a group."""
    groups = context.db.texts("Caller", caller, "groups")
    if group not in groups:
        context.db.set("Caller", caller, "groups", [*groups, group])
    return ""


@calls.on("Caller.remove_group")
def remove_group(context: Context, caller: str, group: str) -> str:
    """Count a caller to a group no more."""
    groups = context.db.texts("Caller", caller, "groups")
    context.db.set("Caller", caller, "groups", [each for each in groups if each != group])
    return ""


@calls.on("Caller.query_call_count")
def query_call_count(context: Context, caller: str) -> int:
    """Return how often it called; the lab does not count."""
    return 0


@calls.on("Caller.query_token_usage")
def query_token_usage(context: Context, caller: str) -> float:
    """Return what it used up; the lab does not count."""
    return 0.0


@calls.on("Caller.query_group_call_count")
def query_group_call_count(context: Context, group: str) -> int:
    """Return how often a group called; the lab does not count."""
    return 0


@calls.on("Caller.query_group_token_usage")
def query_group_token_usage(context: Context, group: str) -> float:
    """Return what a group used up; the lab does not count."""
    return 0.0


@calls.on("Caller.query_all_usage")
def query_all_usage(context: Context) -> list[list[str]]:
    """Return what everybody used up; the lab does not count."""
    return []


def _check_rates(burst_size: object, fill_rate: object) -> None:
    for name, value in (("fill_rate", fill_rate), ("burst_size", burst_size)):
        if float(str(value)) <= 0.0:
            text = f"{float(str(value)):.12g}"
            raise ApiFailure("INVALID_VALUE", name, text if "." in text or "e" in text else f"{text}.")


@calls.on("Rate_limit.create")
def create_rate_limit(context: Context, record: Fields) -> str:
    """Make a limit; it must let something through."""
    _check_rates(record["burst_size"], record["fill_rate"])
    return context.db.create("Rate_limit", record)


@calls.on("Rate_limit.destroy")
def destroy_rate_limit(context: Context, limit: str) -> str:
    """Remove a limit from everybody."""
    db = context.db
    with db.transaction():
        for caller in db.texts("Rate_limit", limit, "callers"):
            db.set("Caller", caller, "rate_limit", NULL_REF)
        db.destroy("Rate_limit", limit)
    return ""


@calls.on("Rate_limit.set_burst_size")
def set_burst_size(context: Context, limit: str, value: float) -> str:
    """Change how much may come at once."""
    _check_rates(value, context.db.row("Rate_limit", limit).fields["fill_rate"])
    context.db.set("Rate_limit", limit, "burst_size", value)
    return ""


@calls.on("Rate_limit.set_fill_rate")
def set_fill_rate(context: Context, limit: str, value: float) -> str:
    """Change how much may come in the long run."""
    _check_rates(context.db.row("Rate_limit", limit).fields["burst_size"], value)
    context.db.set("Rate_limit", limit, "fill_rate", value)
    return ""


@calls.on("Rate_limit.add_caller")
def add_caller(context: Context, limit: str, caller: str) -> str:
    """Limit a caller, by this and nothing else."""
    context.db.row("Caller", caller)
    context.db.row("Rate_limit", limit)
    context.db.set("Caller", caller, "rate_limit", limit)
    return ""


@calls.on("Rate_limit.remove_caller")
def remove_caller(context: Context, limit: str, caller: str) -> str:
    """Limit a caller by this no more."""
    if context.db.text("Caller", caller, "rate_limit") == limit:
        context.db.set("Caller", caller, "rate_limit", NULL_REF)
    return ""


# -- controllers of software-defined networks


@calls.on("SDN_controller.introduce")
def introduce_controller(context: Context, protocol: str = "ssl", address: str = "", port: int = 0) -> str:
    """Name the controller of Open vSwitch; there can be one."""
    db = context.db
    if db.mapping("host", context.pool.master_ref, "software_version").get("network_backend") != "openvswitch":
        raise ApiFailure("OPERATION_NOT_ALLOWED", "host not configured for vswitch operation")
    if db.count("SDN_controller"):
        text = "SDN controller has been configured. Please forget it first."
        raise ApiFailure("OPERATION_NOT_ALLOWED", text)
    if protocol == "pssl" and (address or port):
        raise ApiFailure("INVALID_VALUE", *(("address", address) if address else ("port", str(port))))
    if protocol == "ssl":
        _check_address(address)
        port = port or 6632
    if not 0 <= port <= 65535:
        raise ApiFailure("INVALID_VALUE", "port", str(port))
    return db.create("SDN_controller", {"protocol": protocol, "address": address, "port": port})


def _check_address(text: str) -> None:
    if not text:
        raise ApiFailure("INVALID_VALUE", "address", text)
    try:
        ipaddress.IPv4Address(text)
    except ValueError as cause:
        raise ApiFailure("INVALID_IP_ADDRESS_SPECIFIED", "address") from cause


@calls.on("SDN_controller.forget")
def forget_controller(context: Context, controller: str) -> str:
    """Have no controller."""
    context.db.destroy("SDN_controller", controller)
    return ""


# -- devices


@calls.on("console.create", "console.destroy")
def refuse_console(context: Context, *given: object) -> str:
    """A pool knows these names and nothing behind them: a VM has its consoles while it runs."""
    raise ApiFailure("NOT_IMPLEMENTED", "Console.destroy" if isinstance(given[0], str) else "Console.create")


@calls.on("pool.test_archive_target")
def test_archive_target(context: Context, pool: str, config: Fields) -> str:
    """A pool knows this name, and that there is nothing behind it any more."""
    raise ApiFailure("MESSAGE_REMOVED")


@calls.on("PUSB.scan", "Host_driver.rescan")
def scan_devices(context: Context, host: str) -> str:
    """Look for devices to give away; a host of the lab has none."""
    context.db.row("host", host)
    return ""
