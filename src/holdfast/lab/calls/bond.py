"""Calls of bonds: several interfaces of one host that act as one.

Invariant: what stood on a member, its addresses, VLANs, tunnels and the cards of running VMs, stands on the bond while
there is one, and on its first member afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from holdfast.lab.calls.interface import (
    check_no_local_interface,
    check_pif_managed,
    is_mac,
    new_pif_metrics,
    plug,
)
from holdfast.lab.calls.network import check_network_managed
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

Map = dict[str, str]

_ADDRESS = ("ip_configuration_mode", "IP", "netmask", "gateway", "DNS")


def _is_number(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        return False
    return True


_LACP: dict[str, tuple[str | None, Callable[[str], bool]]] = {
    "hashing_algorithm": ("tcpudp_ports", lambda text: text in ("src_mac", "tcpudp_ports")),
    "lacp-time": ("slow", lambda text: text in ("fast", "slow")),
    "lacp-aggregation-key": (None, _is_number),
    "lacp-fallback-ab": ("true", lambda text: text in ("true", "false")),
}
"""The properties of a bond by LACP: what each is unless it is given, and what it can be. Other modes have none."""


def _check_property(mode: str, name: str, value: str) -> None:
    if mode != "lacp" or name not in _LACP or not _LACP[name][1](value):
        raise ApiFailure("INVALID_VALUE", "properties", f"{name} = {value}")


def _completed(mode: str, properties: Map) -> Map:
    if mode != "lacp":
        return properties
    return {name: value for name, (value, _) in _LACP.items() if value is not None} | properties


@calls.on("Bond.create")
def create(
    context: Context,
    network: str,
    members: list[str],
    mac: str,
    mode: str = "balance-slb",
    properties: Map | None = None,
) -> str:
    """Bond the interfaces and plug the bond."""
    db = context.db
    with db.transaction():
        check_network_managed(context, network)
        if not members:
            raise ApiFailure("PIF_BOND_NEEDS_MORE_MEMBERS")
        host = db.text("PIF", members[0], "host")
        check_no_local_interface(context, host, network)
        if mac and not is_mac(mac):
            raise ApiFailure("MAC_INVALID", mac)
        for name, value in (properties or {}).items():
            _check_property(mode, name, value)
        members = list(dict.fromkeys(members))
        first = _first_member(context, members)
        _check_members(context, members)
        taken = {db.text("PIF", each, "device") for each in db.texts("host", host, "PIFs")}
        shared = db.row("PIF", first).fields
        values: Fields = {
            "device": next(name for n in range(len(taken) + 1) if (name := f"bond{n}") not in taken),
            "network": network,
            "host": host,
            "MAC": mac or shared["MAC"],
            "MTU": -1,
            "VLAN": -1,
            "metrics": new_pif_metrics(context),
            "currently_attached": False,
            "IPv6": [""],
            "primary_address_type": shared["primary_address_type"],
            "properties": shared["properties"],
        }
        master = db.create("PIF", values)
        choice: Fields = {"mode": mode, "properties": _completed(mode, properties or {}), "auto_update_mac": not mac}
        bond = db.create("Bond", {"master": master, "primary_slave": first, **choice})
        for member in members:
            db.set("PIF", member, "bond_slave_of", bond)
            _move(context, member, master, moves_address=member == first)
        plug(context, master)
    return bond


def _first_member(context: Context, members: list[str]) -> str:
    """Return the member that clients talk through, else one with an address, else the first."""
    db = context.db
    rows = [db.row("PIF", member) for member in members]
    first = min(rows, key=lambda row: (not row.fields["management"], not _has_address(row.fields)))
    for row in rows:
        if row.fields["primary_address_type"] != first.fields["primary_address_type"]:
            raise ApiFailure("PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE", row.ref)
    return first.ref


def _has_address(fields: Fields) -> bool:
    name = "ip_configuration_mode" if fields["primary_address_type"] == "IPv4" else "ipv6_configuration_mode"
    return fields[name] != "None"


def _check_members(context: Context, members: list[str]) -> None:
    db = context.db
    for member in members:
        check_pif_managed(context, member)
        fields = db.row("PIF", member).fields
        if fields["tunnel_access_PIF_of"]:
            raise ApiFailure("IS_TUNNEL_ACCESS_PIF", member)
        if fields["VLAN_master_of"] != NULL_REF:
            raise ApiFailure("PIF_VLAN_EXISTS", str(fields["device"]))
        if db.exists("Bond", str(fields["bond_slave_of"])):
            raise ApiFailure("PIF_ALREADY_BONDED", member)
        if fields["management"] and db.flag("pool", context.pool.pool_ref, "ha_enabled"):
            raise ApiFailure("HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE")
    rows = [db.row("PIF", member).fields for member in members]
    if len({fields["host"] for fields in rows}) != 1:
        raise ApiFailure("PIF_CANNOT_BOND_CROSS_HOST")
    if any(fields["properties"] != rows[0]["properties"] for fields in rows):
        raise ApiFailure("INCOMPATIBLE_PIF_PROPERTIES")
    if sum(_has_address(fields) for fields in rows) > 1:
        raise ApiFailure("PIF_BOND_MORE_THAN_ONE_IP")


def _move(context: Context, source: str, target: str, *, moves_address: bool) -> None:
    """Let ``target`` carry what ``source`` carried."""
    db = context.db
    fields, network = dict(db.row("PIF", source).fields), db.text("PIF", target, "network")
    if moves_address:
        db.update("PIF", target, {name: fields[name] for name in _ADDRESS})
        db.update("PIF", source, {"ip_configuration_mode": "None", "IP": "", "netmask": "", "gateway": "", "DNS": ""})
    if fields["management"] or fields["disallow_unplug"]:
        db.update("PIF", target, {name: fields[name] for name in ("management", "disallow_unplug")})
        db.update("PIF", source, {"management": False, "disallow_unplug": False})
    for vlan in cast("list[str]", fields["VLAN_slave_of"]):
        db.set("VLAN", vlan, "tagged_PIF", target)
        db.set("PIF", db.text("VLAN", vlan, "untagged_PIF"), "device", db.text("PIF", target, "device"))
    for tunnel in cast("list[str]", fields["tunnel_transport_PIF_of"]):
        db.set("tunnel", tunnel, "transport_PIF", target)
    for vif in db.texts("network", str(fields["network"]), "VIFs"):
        if db.text("VM", db.text("VIF", vif, "VM"), "resident_on") == fields["host"]:
            db.set("VIF", vif, "network", network)


@calls.on("Bond.destroy")
def destroy(context: Context, bond: str) -> str:
    """Let the interfaces go their own ways; the first one takes over what the bond carried."""
    db = context.db
    with db.transaction():
        master, first = db.text("Bond", bond, "master"), db.text("Bond", bond, "primary_slave")
        if db.flag("PIF", master, "management") and db.flag("pool", context.pool.pool_ref, "ha_enabled"):
            raise ApiFailure("HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE")
        is_plugged = db.flag("PIF", master, "currently_attached")
        _move(context, master, first, moves_address=True)
        for member in db.texts("Bond", bond, "slaves"):
            db.update("PIF", member, {"bond_slave_of": NULL_REF, "currently_attached": is_plugged})
        db.destroy("Bond", bond)
        db.destroy("PIF", master)
    return ""


@calls.on("Bond.set_mode")
def set_mode(context: Context, bond: str, mode: str) -> str:
    """Choose how the interfaces share the load; properties that the mode does not have are dropped."""
    db = context.db
    with db.transaction():
        kept = {}
        for name, value in db.mapping("Bond", bond, "properties").items():
            if mode == "lacp" and name in _LACP and _LACP[name][1](value):
                kept[name] = value
        db.update("Bond", bond, {"mode": mode, "properties": _completed(mode, kept)})
        plug(context, db.text("Bond", bond, "master"))
    return ""


@calls.on("Bond.set_property")
def set_property(context: Context, bond: str, name: str, value: str) -> str:
    """Set a property of a bond."""
    db = context.db
    _check_property(db.text("Bond", bond, "mode"), name, value)
    with db.transaction():
        db.put_key("Bond", bond, "properties", key=name, value=value)
        plug(context, db.text("Bond", bond, "master"))
    return ""
