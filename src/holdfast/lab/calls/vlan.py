"""Calls of VLANs and tunnels: interfaces that stand on another one.

Each has an interface of its own, which is plugged as soon as it exists and goes with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.lab.calls.interface import (
    VLAN_MAC,
    check_no_local_interface,
    check_no_trunks,
    check_pif_managed,
    check_unprotected,
    plug,
    unplug,
)
from holdfast.lab.calls.network import check_network_managed
from holdfast.lab.calls.vif import derived_mac
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

_TAG_MAX = 4094
_NO_VLAN = -1


def _check_bottom(context: Context, pif: str, *, bond_member: str) -> None:
    """Return when something can stand on the interface."""
    fields = context.db.row("PIF", pif).fields
    if fields["tunnel_access_PIF_of"]:
        raise ApiFailure("IS_TUNNEL_ACCESS_PIF", pif)
    if fields["physical"] and fields["bond_slave_of"] != NULL_REF:
        raise ApiFailure(bond_member, pif)


def _stack(context: Context, pif: str, values: Fields) -> str:
    """Make the interface of what stands on ``pif``."""
    below = context.db.row("PIF", pif).fields
    shared = {name: below[name] for name in ("host", "metrics", "primary_address_type")}
    return context.db.create("PIF", {**shared, "currently_attached": False, "IPv6": [""], **values})


# -- VLANs


@calls.on("VLAN.create")
def create_vlan(context: Context, pif: str, tag: int, network: str) -> str:
    """Put a network with this tag on an interface."""
    db = context.db
    with db.transaction():
        db.row("PIF", pif)
        check_network_managed(context, network)
        check_no_local_interface(context, db.text("PIF", pif, "host"), network)
        check_pif_managed(context, pif)
        if db.text("PIF", pif, "VLAN_master_of") != NULL_REF:
            raise ApiFailure("PIF_IS_VLAN", pif)
        _check_bottom(context, pif, bond_member="CANNOT_ADD_VLAN_TO_BOND_SLAVE")
        if not 0 <= tag <= _TAG_MAX:
            raise ApiFailure("VLAN_TAG_INVALID", str(tag))
        device = db.text("PIF", pif, "device")
        if any(db.number("VLAN", vlan, "tag") == tag for vlan in db.texts("PIF", pif, "VLAN_slave_of")):
            raise ApiFailure("PIF_VLAN_EXISTS", device)
        check_no_trunks(context, network)
        values: Fields = {"device": device, "network": network, "MAC": VLAN_MAC, "VLAN": tag}
        untagged = _stack(context, pif, {**values, "MTU": db.number("PIF", pif, "MTU")})
        vlan = db.create("VLAN", {"tagged_PIF": pif, "untagged_PIF": untagged, "tag": tag})
        db.set("PIF", untagged, "VLAN_master_of", vlan)
        plug(context, untagged)
    return vlan


@calls.on("VLAN.pool_introduce")
def introduce_vlan(context: Context, tagged: str, untagged: str, tag: int, other_config: Fields) -> str:
    """Make the record of a VLAN as a joining host describes it."""
    db = context.db
    with db.transaction():
        db.row("PIF", untagged)
        values: Fields = {"tagged_PIF": tagged, "untagged_PIF": untagged, "tag": tag, "other_config": other_config}
        vlan = db.create("VLAN", values)
        old, shared = db.text("PIF", untagged, "metrics"), db.text("PIF", tagged, "metrics")
        db.update("PIF", untagged, {"VLAN_master_of": vlan, "metrics": shared})
        if old != shared and db.exists("PIF_metrics", old):
            db.destroy("PIF_metrics", old)
    return vlan


@calls.on("VLAN.destroy")
def destroy_vlan(context: Context, vlan: str) -> str:
    """Take a VLAN and its interface away."""
    db = context.db
    with db.transaction():
        untagged = db.text("VLAN", vlan, "untagged_PIF")
        if db.exists("PIF", untagged):
            if db.row("PIF", untagged).fields["bond_master_of"]:
                raise ApiFailure("PIF_ALREADY_BONDED", untagged)
            check_unprotected(context, untagged)
            if db.number("PIF", untagged, "VLAN") < 0:
                raise ApiFailure("PIF_IS_PHYSICAL")
            unplug(context, untagged)
            db.destroy("PIF", untagged)
        db.destroy("VLAN", vlan)
    return ""


@calls.on("PIF.create_VLAN")
def create_pif_vlan(context: Context, device: str, network: str, host: str, tag: int) -> str:
    """Put a tagged network on a host's interface by the interface's name."""
    db = context.db
    for pif in db.texts("host", host, "PIFs"):
        if db.text("PIF", pif, "device") == device and db.number("PIF", pif, "VLAN") == _NO_VLAN:
            return db.text("VLAN", create_vlan(context, pif, tag, network), "untagged_PIF")
    raise ApiFailure("INVALID_VALUE", "device", device)


@calls.on("PIF.destroy")
def destroy_pif(context: Context, pif: str) -> str:
    """Take away the VLAN that the interface is for; there is no other way to destroy one."""
    db = context.db
    if db.number("PIF", pif, "VLAN") < 0:
        raise ApiFailure("PIF_IS_PHYSICAL")
    return destroy_vlan(context, db.text("PIF", pif, "VLAN_master_of"))


@calls.on("pool.create_VLAN")
def create_pool_vlan(context: Context, device: str, network: str, tag: int) -> list[str]:
    """Put a tagged network on the interface of this name of every host, or of none."""
    with _all_or_none(context) as made:
        for row in context.db.rows("host"):
            made.append(create_pif_vlan(context, device, network, row.ref, tag))
    return made


@calls.on("pool.create_VLAN_from_PIF")
def create_pool_vlan_from_pif(context: Context, pif: str, network: str, tag: int) -> list[str]:
    """Put a tagged network wherever a host is on the network of the interface, or nowhere."""
    db = context.db
    from_network = db.text("PIF", pif, "network")
    db.row("network", network)
    with _all_or_none(context) as made:
        for each in db.texts("network", from_network, "PIFs"):
            metrics = db.text("host", db.text("PIF", each, "host"), "metrics")
            if db.flag("host_metrics", metrics, "live"):
                made.append(db.text("VLAN", create_vlan(context, each, tag, network), "untagged_PIF"))
    return made


@contextmanager
def _all_or_none(context: Context) -> Iterator[list[str]]:
    """Take away the interfaces that the block made and listed when it ends with a refusal."""
    made: list[str] = []
    with context.db.transaction():
        try:
            yield made
        except ApiFailure:
            for pif in made:
                destroy_pif(context, pif)
            raise


# -- tunnels


@calls.on("tunnel.create")
def create_tunnel(context: Context, pif: str, network: str, protocol: str = "gre") -> str:
    """Carry a network inside the traffic of an interface; only hosts that use Open vSwitch can."""
    db = context.db
    with db.transaction():
        db.row("PIF", pif)
        check_network_managed(context, network)
        host = db.text("PIF", pif, "host")
        check_no_local_interface(context, host, network)
        check_pif_managed(context, pif)
        _check_bottom(context, pif, bond_member="CANNOT_ADD_TUNNEL_TO_BOND_SLAVE")
        for row in db.rows("host"):
            if db.mapping("host", row.ref, "software_version").get("network_backend") != "openvswitch":
                raise ApiFailure("OPENVSWITCH_NOT_ACTIVE")
        taken = {db.text("PIF", each, "device") for each in db.texts("host", host, "PIFs")}
        device = next(name for n in range(len(taken) + 1) if (name := f"tunnel{n}") not in taken)
        values: Fields = {
            "device": device,
            "network": network,
            "MAC": derived_mac(context.pool.new_uuid(), "0"),
            "VLAN": _NO_VLAN,
        }
        access = _stack(context, pif, {**values, "MTU": -1})
        tunnel = db.create("tunnel", {"access_PIF": access, "transport_PIF": pif, "protocol": protocol})
        plug(context, access)
    return tunnel


@calls.on("tunnel.destroy")
def destroy_tunnel(context: Context, tunnel: str) -> str:
    """Take a tunnel and its interface away."""
    db = context.db
    with db.transaction():
        access = db.text("tunnel", tunnel, "access_PIF")
        unplug(context, access)
        db.destroy("PIF", access)
        db.destroy("tunnel", tunnel)
    return ""
