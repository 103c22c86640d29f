"""Calls of networks: making and removing them, what they are for, and whether cards on them are locked."""

from __future__ import annotations

from typing import cast

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure

__all__ = ["calls", "check_network_managed", "create_network"]

calls = CallSet()

_INCOMPATIBLE = {"nbd": "insecure_nbd", "insecure_nbd": "nbd"}

_BRIDGE_LENGTH_MAX = 15
"""The longest name that a network interface can have on Linux."""

_RESERVED_BRIDGES = ("xen", "xapi", "vif", "tap", "eth")
"""How names begin that the host gives to its own interfaces."""

_MTU_BYTES = 1500

_SYSTEM_NETWORK = "is_host_internal_management_network"


def check_network_managed(context: Context, network: str) -> None:
    """Return when the pool looks after the network; ``NETWORK_UNMANAGED`` otherwise."""
    if not context.db.flag("network", network, "managed"):
        raise ApiFailure("NETWORK_UNMANAGED", network)


@calls.on("network.create")
def _create(context: Context, record: Fields) -> str:
    """Make a network for a client, which may not take names that the host gives."""
    bridge = str(record["bridge"])
    is_reserved = len(bridge.encode()) > _BRIDGE_LENGTH_MAX or bridge.startswith(_RESERVED_BRIDGES)
    if is_reserved and not context.pool.sessions.is_pool(context.session):
        raise ApiFailure("INVALID_VALUE", "bridge", bridge)
    return create_network(context, record)


def create_network(context: Context, record: Fields) -> str:
    """Make a network; without a bridge name it gets the next one that the pool never gave."""
    db = context.db
    with db.transaction():
        taken = {str(row.fields["bridge"]) for row in db.rows("network")}
        if not record["bridge"]:
            names = (f"xapi{number}" for number in context.pool.bridge_numbers)
            record = {**record, "bridge": next(name for name in names if name not in taken)}
        elif record["bridge"] in taken:
            raise ApiFailure("BRIDGE_NAME_EXISTS", str(record["bridge"]))
        if cast(int, record.get("MTU", _MTU_BYTES)) <= 0:
            record = {**record, "MTU": _MTU_BYTES}
        return db.create("network", record)


@calls.on("network.pool_introduce")
def introduce_network(
    context: Context,
    name: str,
    description: str,
    mtu: int,
    other_config: Fields,
    bridge: str,
    managed: bool,
    purpose: list[str],
) -> str:
    """Make a network as a joining host describes it."""
    values: Fields = {
        "name_label": name,
        "name_description": description,
        "MTU": mtu,
        "other_config": other_config,
        "bridge": bridge,
        "managed": managed,
        "purpose": purpose,
    }
    return context.db.create("network", values)


@calls.on("network.destroy")
def destroy_network(context: Context, network: str) -> str:
    """Remove a network that nothing is plugged into, and the unplugged cards on it."""
    db = context.db
    with db.transaction():
        vifs = db.texts("network", network, "VIFs")
        if plugged := [vif for vif in vifs if db.flag("VIF", vif, "currently_attached")]:
            raise ApiFailure("NETWORK_CONTAINS_VIF", *reversed(plugged))
        if pifs := db.texts("network", network, "PIFs"):
            raise ApiFailure("NETWORK_CONTAINS_PIF", *reversed(pifs))
        if db.mapping("network", network, "other_config").get(_SYSTEM_NETWORK) == "true":
            raise ApiFailure("CANNOT_DESTROY_SYSTEM_NETWORK", network)
        for vif in vifs:
            db.destroy("VIF", vif)
        db.destroy("network", network)
    return ""


@calls.on("network.set_default_locking_mode")
def set_default_locking_mode(context: Context, network: str, value: str) -> str:
    """Say whether cards on the network are locked; not while one is plugged."""
    db = context.db
    for vif in db.texts("network", network, "VIFs"):
        if db.flag("VIF", vif, "currently_attached"):
            raise ApiFailure("VIF_IN_USE", network, vif)
    db.set("network", network, "default_locking_mode", value)
    return ""


@calls.on("network.add_purpose")
def add_purpose(context: Context, network: str, purpose: str) -> str:
    """Say what a network is for; encrypted and plain NBD exclude each other in the whole pool."""
    db = context.db
    with db.transaction():
        before = db.texts("network", network, "purpose")
        if purpose in before:
            return ""
        rival = _INCOMPATIBLE.get(purpose, "")
        if any(rival in db.texts("network", row.ref, "purpose") for row in db.rows("network")):
            raise ApiFailure("NETWORK_INCOMPATIBLE_PURPOSES", purpose, rival)
        db.set("network", network, "purpose", [*before, purpose])
    return ""


@calls.on("network.remove_purpose")
def remove_purpose(context: Context, network: str, purpose: str) -> str:
    """Take a purpose away; nothing happens when it is absent."""
    db = context.db
    with db.transaction():
        db.set("network", network, "purpose", [p for p in db.texts("network", network, "purpose") if p != purpose])
    return ""


@calls.on("network.attach")
def attach_network(context: Context, network: str, host: str) -> str:
    """Bring the network up on a host: its interface there is plugged."""
    db = context.db
    db.row("host", host)
    with db.transaction():
        for pif in db.texts("network", network, "PIFs"):
            fields = db.row("PIF", pif).fields
            if fields["host"] == host and fields["managed"]:
                if db.exists("Bond", str(fields["bond_slave_of"])):
                    raise ApiFailure("CANNOT_PLUG_BOND_SLAVE", pif)
                db.set("PIF", pif, "currently_attached", True)
    return ""


@calls.on("network.attach_for_vm", "network.detach_for_vm")
def accept_vm(context: Context, host: str, vm: str) -> str:
    """Nothing to do: networks of the lab are up while their interfaces are."""
    context.db.row("host", host)
    context.db.row("VM", vm)
    return ""
