"""Calls of the physical interfaces of hosts (PIFs): which there are, and whether they are up.

The interfaces of a lab host are those it was made with: none appears, and one that was forgotten can be introduced
again by its name and address.
"""

from __future__ import annotations

import re
from typing import cast

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.errors import ApiFailure

__all__ = [
    "VLAN_MAC",
    "calls",
    "check_no_local_interface",
    "check_no_trunks",
    "check_not_management",
    "check_pif_managed",
    "check_unprotected",
    "is_mac",
    "new_pif_metrics",
    "plug",
    "unplug",
]

calls = CallSet()

VLAN_MAC = "fe:ff:ff:ff:ff:ff"
"""What stands for the address of an interface that has none of its own."""

_NO_VLAN = -1

_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


def is_mac(text: str) -> bool:
    """Whether the text is an address of a network card."""
    return _MAC.fullmatch(text) is not None


def new_pif_metrics(context: Context) -> str:
    """Return fresh metrics of an interface that nothing is known of."""
    values: Fields = {"vendor_id": "", "vendor_name": "", "device_id": "", "device_name": "", "pci_bus_path": ""}
    values |= {"carrier": False, "duplex": False, "speed": 0, "last_updated": EPOCH}
    return context.db.create("PIF_metrics", values)


# -- what must hold


def check_pif_managed(context: Context, pif: str) -> None:
    """Return when the pool looks after the interface; ``PIF_UNMANAGED`` otherwise."""
    if not context.db.flag("PIF", pif, "managed"):
        raise ApiFailure("PIF_UNMANAGED", pif)


def check_no_local_interface(context: Context, host: str, network: str) -> None:
    """Return when the host is not on the network yet; ``NETWORK_ALREADY_CONNECTED`` otherwise."""
    db = context.db
    for pif in reversed(db.texts("network", network, "PIFs")):
        if db.text("PIF", pif, "host") == host:
            raise ApiFailure("NETWORK_ALREADY_CONNECTED", host, pif)


def check_no_trunks(context: Context, network: str) -> None:
    """Return when no card on the network carries several VLANs; ``NETWORK_INCOMPATIBLE_WITH_TRUNKS`` otherwise."""
    db = context.db
    if any(db.row("VIF", vif).fields["trunks"] for vif in db.texts("network", network, "VIFs")):
        raise ApiFailure("NETWORK_INCOMPATIBLE_WITH_TRUNKS", network)


def check_unprotected(context: Context, pif: str) -> None:
    """Return when neither high availability nor the redo log could depend on the interface."""
    pool = context.db.row("pool", context.pool.pool_ref).fields
    if not context.db.flag("PIF", pif, "currently_attached"):
        return
    if pool["ha_enabled"]:
        raise ApiFailure("HA_IS_ENABLED")
    if pool["redo_log_enabled"]:
        raise ApiFailure("REDO_LOG_IS_ENABLED")


def check_not_management(context: Context, pif: str) -> None:
    """Return when clients do not talk to the host through the interface; ``PIF_IS_MANAGEMENT_INTERFACE`` otherwise."""
    if context.db.flag("PIF", pif, "management"):
        raise ApiFailure("PIF_IS_MANAGEMENT_INTERFACE", pif)


def _check_stands_alone(context: Context, pif: str) -> None:
    """Nothing is built on the interface, and it is built on nothing."""
    db = context.db
    fields = db.row("PIF", pif).fields
    if db.exists("Bond", str(fields["bond_slave_of"])) or fields["bond_master_of"]:
        raise ApiFailure("PIF_ALREADY_BONDED", pif)
    if fields["VLAN_slave_of"] or fields["VLAN"] != _NO_VLAN:
        raise ApiFailure("PIF_VLAN_STILL_EXISTS", pif)
    if fields["tunnel_transport_PIF_of"] or fields["tunnel_access_PIF_of"]:
        raise ApiFailure("PIF_TUNNEL_STILL_EXISTS", pif)


def _check_network_idle(context: Context, pif: str) -> None:
    db = context.db
    host, network = db.text("PIF", pif, "host"), db.text("PIF", pif, "network")
    if not db.exists("network", network):
        return
    for vif in db.texts("network", network, "VIFs"):
        fields = db.row("VIF", vif).fields
        if fields["currently_attached"] and db.text("VM", str(fields["VM"]), "resident_on") == host:
            raise ApiFailure("VIF_IN_USE", network, vif)


# -- up and down


@calls.on("PIF.plug")
def plug(context: Context, pif: str) -> str:
    """Bring an interface up, and what it stands on."""
    db = context.db
    check_pif_managed(context, pif)
    with db.transaction():
        fields = db.row("PIF", pif).fields
        for tunnel in cast("list[str]", fields["tunnel_access_PIF_of"]):
            transport = db.text("tunnel", tunnel, "transport_PIF")
            if db.text("PIF", transport, "ip_configuration_mode") == "None":
                raise ApiFailure("TRANSPORT_PIF_NOT_CONFIGURED", transport)
            plug(context, transport)
            db.put_key("tunnel", tunnel, "status", key="active", value="true")
        if fields["physical"] and fields["bond_slave_of"] != NULL_REF:
            raise ApiFailure("CANNOT_PLUG_BOND_SLAVE", pif)
        for bond in cast("list[str]", fields["bond_master_of"]):
            for member in db.texts("Bond", bond, "slaves"):
                db.set("PIF", member, "currently_attached", False)
        network = db.find("network", str(fields["network"]))
        mtu = fields["MTU"] if network is None else network.fields["MTU"]
        db.update("PIF", pif, {"currently_attached": True, "MTU": mtu})
    return ""


@calls.on("PIF.unplug")
def unplug(context: Context, pif: str) -> str:
    """Take an interface down, and the tunnels over it; not one that clients or running VMs need."""
    db = context.db
    check_pif_managed(context, pif)
    check_unprotected(context, pif)
    check_not_management(context, pif)
    _check_network_idle(context, pif)
    with db.transaction():
        fields = db.row("PIF", pif).fields
        if fields["disallow_unplug"]:
            raise ApiFailure("PIF_DOES_NOT_ALLOW_UNPLUG", pif)
        for tunnel in cast("list[str]", fields["tunnel_transport_PIF_of"]):
            unplug(context, db.text("tunnel", tunnel, "access_PIF"))
        for tunnel in cast("list[str]", fields["tunnel_access_PIF_of"]):
            db.put_key("tunnel", tunnel, "status", key="active", value="false")
        if fields["bond_slave_of"] == NULL_REF:
            db.set("PIF", pif, "currently_attached", False)
    return ""


# -- which there are


@calls.on("PIF.scan")
def scan(context: Context, host: str) -> str:
    """Look for interfaces that have no record; the lab finds those that were forgotten."""
    db = context.db
    with db.transaction():
        db.row("host", host)
        for device, mac in list(_unknown(context, host).items()):
            introduce(context, host, mac, device)
    return ""


def _unknown(context: Context, host: str) -> dict[str, str]:
    """Return the addresses of the host's interfaces that have no record, by their name."""
    return context.pool.forgotten_interfaces.setdefault(host, {})


@calls.on("PIF.introduce")
def introduce(context: Context, host: str, mac: str, device: str, managed: bool = True) -> str:
    """Make a record of an interface that the host has and the pool does not know."""
    db = context.db
    mac = mac.lower()
    known = {str(db.row("PIF", pif).fields["device"]): pif for pif in db.texts("host", host, "PIFs")}
    macs = _unknown(context, host) | {device: db.text("PIF", pif, "MAC") for device, pif in known.items()}
    mac = mac or macs.get(device, "")
    if not is_mac(mac):
        raise ApiFailure("MAC_INVALID", mac)
    if device in known:
        raise ApiFailure("DUPLICATE_PIF_DEVICE_NAME", device)
    if macs.get(device) != mac:
        raise ApiFailure("COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS", device, mac)
    with db.transaction():
        del _unknown(context, host)[device]
        values: Fields = {
            "device": device,
            "network": _network_of(context, device, managed=managed),
            "host": host,
            "MAC": mac,
            "MTU": 1500,
            "VLAN": _NO_VLAN,
            "metrics": new_pif_metrics(context),
            "physical": True,
            "currently_attached": False,
            "managed": managed,
            "properties": {"gro": "on"},
        }
        return db.create("PIF", values)


def _network_of(context: Context, device: str, *, managed: bool) -> str:
    bridge = f"xenbr{device.removeprefix('eth')}" if managed else ""
    for row in context.db.rows("network"):
        if row.fields["bridge"] == bridge:
            return row.ref
    values: Fields = {"name_label": f"Pool-wide network associated with {device}", "bridge": bridge, "managed": managed}
    return context.db.create("network", values)


@calls.on("PIF.forget")
def forget(context: Context, pif: str) -> str:
    """Drop the record of an interface that nothing needs."""
    db = context.db
    check_not_management(context, pif)
    _check_stands_alone(context, pif)
    check_unprotected(context, pif)
    with db.transaction():
        fields = db.row("PIF", pif).fields
        host, device, mac = (str(fields[name]) for name in ("host", "device", "MAC"))
        _unknown(context, host)[device] = mac
        if db.exists("PIF_metrics", str(fields["metrics"])):
            db.destroy("PIF_metrics", str(fields["metrics"]))
        db.destroy("PIF", pif)
    return ""


@calls.on("PIF.db_forget")
def db_forget(context: Context, pif: str) -> str:
    """Drop a record and ask nothing."""
    context.db.destroy("PIF", pif)
    return ""


_INTRODUCED = (
    "device network host MAC MTU VLAN physical ip_configuration_mode IP netmask gateway DNS bond_slave_of "
    "VLAN_master_of management other_config disallow_unplug ipv6_configuration_mode IPv6 ipv6_gateway "
    "primary_address_type managed properties"
).split()


@calls.on("PIF.db_introduce", "PIF.pool_introduce")
def db_introduce(context: Context, *given: object) -> str:
    """Make a record as a joining host describes it; whose member of a bond it is shows later."""
    values: Fields = dict(zip(_INTRODUCED, given, strict=False))
    if values["VLAN"] != _NO_VLAN:
        check_no_trunks(context, str(values["network"]))
    del values["bond_slave_of"]
    return context.db.create("PIF", {**values, "currently_attached": False, "metrics": new_pif_metrics(context)})
