"""What may be done with a VM's virtual disks and network cards now."""

from __future__ import annotations

from holdfast.lab.database import Database, Row

__all__ = ["allowed_vbd_operations", "allowed_vif_operations"]


def _power_state(db: Database, row: Row) -> str:
    vm = db.find("VM", str(row.fields["VM"]))
    return "Halted" if vm is None else str(vm.fields["power_state"])


def allowed_vbd_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the virtual disk now, for its record."""
    if row.fields["current_operations"]:
        return []
    if row.fields["currently_attached"]:
        found = ["unplug", "unplug_force"]
    elif _power_state(db, row) in ("Running", "Paused"):
        found = ["attach", "plug"]
    else:
        found = ["attach"]
    if row.fields["type"] == "CD":
        found.append("insert" if row.fields["empty"] else "eject")
    return found


def allowed_vif_operations(db: Database, row: Row) -> list[str]:
    """Return what may be done with the network card now, for its record."""
    if row.fields["current_operations"]:
        return []
    if row.fields["currently_attached"]:
        return ["unplug", "unplug_force"]
    return ["attach", "plug"] if _power_state(db, row) in ("Running", "Paused") else ["attach"]
