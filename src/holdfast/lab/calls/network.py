"""Calls of networks and of virtual network cards."""

from __future__ import annotations

import hashlib
import re

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import bad_power_state

__all__ = ["calls", "derived_mac", "new_vif"]

calls = CallSet()

CARDS_MAX = 16
"""How many network cards a VM can have."""

_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
_INCOMPATIBLE = {"nbd": "insecure_nbd", "insecure_nbd": "nbd"}


@calls.on("network.create")
def create_network(context: Context, record: Fields) -> str:
    """Make a network; without a bridge name it gets the next one."""
    db = context.db
    with db.transaction():
        if not record["bridge"]:
            taken = {str(row.fields["bridge"]) for row in db.rows("network")}
            record = {**record, "bridge": next(f"xapi{n}" for n in range(len(taken) + 1) if f"xapi{n}" not in taken)}
        return db.create("network", record)


@calls.on("network.destroy")
def destroy_network(context: Context, network: str) -> str:
    """Remove a network that nothing is connected to."""
    db = context.db
    if pifs := db.texts("network", network, "PIFs"):
        raise ApiFailure("NETWORK_CONTAINS_PIF", *reversed(pifs))
    if vifs := db.texts("network", network, "VIFs"):
        raise ApiFailure("NETWORK_CONTAINS_VIF", *reversed(vifs))
    db.destroy("network", network)
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
    """Bring the network up on a host; in the lab it always is."""
    context.db.row("network", network)
    context.db.row("host", host)
    return ""


def taken_cards(context: Context, vm: str) -> set[str]:
    """Return the device numbers that the VM's cards use."""
    return {context.db.text("VIF", vif, "device") for vif in context.db.texts("VM", vm, "VIFs")}


@calls.on("VM.get_allowed_VIF_devices")
def get_allowed_vif_devices(context: Context, vm: str) -> list[str]:
    """Return the device numbers that are free."""
    context.db.row("VM", vm)
    taken = taken_cards(context, vm)
    return [str(number) for number in range(CARDS_MAX) if str(number) not in taken]


def derived_mac(seed: str, device: str) -> str:
    """Return the MAC address that a VM's seed gives this card: locally administered, always the same."""
    digest = hashlib.sha256(f"{seed}/{device}".encode()).digest()
    first = (digest[0] | 0x02) & 0xFE
    return ":".join(f"{byte:02x}" for byte in (first, *digest[1:6]))


@calls.on("VIF.create")
def create_vif(context: Context, record: Fields) -> str:
    """Give a VM a network card. Duplicate and multicast addresses are accepted, as recorded from a real pool."""
    db = context.db
    vm, network, device, mac = (str(record[name]) for name in ("VM", "network", "device", "MAC"))
    db.row("VM", vm)
    db.row("network", network)
    if not device.isdigit():
        raise ApiFailure("INVALID_DEVICE", device)
    if mac and not _MAC.fullmatch(mac):
        raise ApiFailure("MAC_INVALID", mac)
    if record["locking_mode"] == "locked" and context.pool.is_restricted("vif_locking"):
        raise ApiFailure("LICENCE_RESTRICTION", "VIF_locking")
    with db.transaction():
        if device in taken_cards(context, vm):
            raise ApiFailure("DEVICE_ALREADY_EXISTS", device)
        return new_vif(context, record)


def new_vif(context: Context, record: Fields) -> str:
    """Add the record; an empty MAC is derived from the VM's seed."""
    db = context.db
    vm = str(record["VM"])
    mac = str(record["MAC"])
    if not mac:
        seed = db.mapping("VM", vm, "other_config").get("mac_seed", vm)
        mac = derived_mac(seed, str(record["device"]))
    is_suspended = db.text("VM", vm, "power_state") == "Suspended"
    return db.create(
        "VIF",
        {
            **record,
            "MAC": mac,
            "MAC_autogenerated": not record["MAC"],
            "currently_attached": bool(record.get("currently_attached")) and is_suspended,
            "metrics": f"OpaqueRef:{context.pool.new_uuid()}",
        },
    )


@calls.on("VIF.destroy")
def destroy_vif(context: Context, vif: str) -> str:
    """Remove a network card that is not attached."""
    if context.db.flag("VIF", vif, "currently_attached"):
        raise ApiFailure("OPERATION_NOT_ALLOWED", f"VIF '{context.db.text('VIF', vif, 'uuid')}' still attached to VM")
    context.db.destroy("VIF", vif)
    return ""


@calls.on("VIF.plug")
def plug_vif(context: Context, vif: str) -> str:
    """Attach the card to its running VM."""
    _check_running(context, vif)
    context.db.set("VIF", vif, "currently_attached", True)
    return ""


@calls.on("VIF.unplug", "VIF.unplug_force")
def unplug_vif(context: Context, vif: str) -> str:
    """Detach the card from its running VM."""
    _check_running(context, vif)
    context.db.set("VIF", vif, "currently_attached", False)
    return ""


@calls.on("VIF.move")
def move_vif(context: Context, vif: str, network: str) -> str:
    """Connect the card to another network."""
    context.db.row("network", network)
    context.db.set("VIF", vif, "network", network)
    return ""


def _check_running(context: Context, vif: str) -> None:
    vm = context.db.text("VIF", vif, "VM")
    power = context.db.text("VM", vm, "power_state") if vm != NULL_REF else "Halted"
    if power not in ("Running", "Paused"):
        raise bad_power_state(vm, wanted=("Running",), actual=power)
