"""Calls of networks."""

from __future__ import annotations

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.errors import ApiFailure

__all__ = ["calls"]

calls = CallSet()

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
