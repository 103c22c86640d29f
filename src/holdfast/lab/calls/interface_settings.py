"""Calls that set up a physical interface: its addresses, its name servers and its properties."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import cast

from holdfast.lab.calls.interface import check_not_management, check_pif_managed, check_unprotected
from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

_PROPERTIES = {"gro": ("on", "off")}
"""What can be set on an interface, and to what."""

_IPV4 = ("ip_configuration_mode", "IP", "netmask", "gateway")
_IPV6 = ("ipv6_configuration_mode", "IPv6", "ipv6_gateway")


def _check_address(name: str, text: str, version: int) -> None:
    try:
        is_right = ipaddress.ip_address(text).version == version
    except ValueError:
        is_right = False
    if not is_right:
        raise ApiFailure("INVALID_IP_ADDRESS_SPECIFIED", name)


def _servers(texts: Iterable[str], version: int) -> list[str]:
    """Return the addresses of one kind among the name servers."""
    found = []
    for text in texts:
        try:
            if ipaddress.ip_address(text).version == version:
                found.append(text)
        except ValueError:
            continue
    return found


@calls.on("PIF.reconfigure_ip")
def reconfigure_ip(
    context: Context, pif: str, mode: str, address: str, netmask: str, gateway: str, servers: str
) -> str:
    """Set how an interface gets its IPv4 address."""
    db = context.db
    check_pif_managed(context, pif)
    before = db.row("PIF", pif).fields
    if mode != "Static" or [before[n] for n in _IPV4] != [mode, address, netmask, gateway]:
        check_unprotected(context, pif)
    for name, text in (("IP", address), ("netmask", netmask), ("gateway", gateway)):
        if text or (mode == "Static" and name != "gateway"):
            _check_address(name, text, 4)
    if before["management"] and mode == "None" and before["primary_address_type"] == "IPv4":
        raise ApiFailure("PIF_IS_MANAGEMENT_INTERFACE", pif)
    kept = _servers(str(before["DNS"]).split(","), 6)
    values: Fields = dict(zip(_IPV4, (mode, address, netmask, gateway), strict=True))
    db.update("PIF", pif, {**values, "DNS": ",".join([*_servers(servers.split(","), 4), *kept])})
    return ""


@calls.on("PIF.reconfigure_ipv6")
def reconfigure_ipv6(context: Context, pif: str, mode: str, address: str, gateway: str, servers: str) -> str:
    """Set how an interface gets its IPv6 address."""
    db = context.db
    check_pif_managed(context, pif)
    before = db.row("PIF", pif).fields
    if mode != "Static" or [before[n] for n in _IPV6] != [mode, [address], gateway]:
        check_unprotected(context, pif)
    if gateway:
        _check_address("gateway", gateway, 6)
    if address:
        _check_prefix(address)
    if before["management"] and mode == "None" and before["primary_address_type"] == "IPv6":
        raise ApiFailure("PIF_IS_MANAGEMENT_INTERFACE", pif)
    kept = _servers(str(before["DNS"]).split(","), 4)
    values: Fields = dict(zip(_IPV6, (mode, [address], gateway), strict=True))
    db.update("PIF", pif, {**values, "DNS": ",".join([*_servers(servers.split(","), 6), *kept])})
    return ""


def _check_prefix(text: str) -> None:
    try:
        is_right = "/" in text and ipaddress.ip_interface(text).version == 6
    except ValueError:
        is_right = False
    if not is_right:
        raise ApiFailure("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6")


@calls.on("PIF.set_primary_address_type")
def set_primary_address_type(context: Context, pif: str, kind: str) -> str:
    """Say which kind of address matters."""
    check_unprotected(context, pif)
    check_not_management(context, pif)
    context.db.set("PIF", pif, "primary_address_type", kind)
    return ""


@calls.on("PIF.set_property")
def set_property(context: Context, pif: str, name: str, value: str) -> str:
    """Set a property of an interface, and of the members of a bond."""
    db = context.db
    db.row("PIF", pif)
    if value not in _PROPERTIES.get(name, ()):
        raise ApiFailure("INVALID_VALUE", "properties", f"{name} = {value}")
    with db.transaction():
        fields = db.row("PIF", pif).fields
        bonds = cast("list[str]", fields["bond_master_of"])
        if not (bonds or fields["physical"]) or fields["bond_slave_of"] != NULL_REF:
            raise ApiFailure("CANNOT_CHANGE_PIF_PROPERTIES", pif)
        properties = {**db.mapping("PIF", pif, "properties"), name: value}
        members = [member for bond in bonds for member in db.texts("Bond", bond, "slaves")]
        for each in (pif, *members):
            db.set("PIF", each, "properties", properties)
    return ""
