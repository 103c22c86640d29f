"""Objects as clients read them: the row's fields, and the lists of what may be done with the object right now.

``allowed_operations`` is never stored: it is computed when a record is read, from the same rules that calls obey, so
the two cannot disagree. What was read is remembered, so that who read it is told when it changes (``ripples.py``).
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.lab.database import Database, Row
from holdfast.lab.ripples import Ripples
from holdfast.lab.rules import (
    allowed_appliance_operations,
    allowed_host_operations,
    allowed_pool_operations,
    allowed_sr_operations,
    allowed_vbd_operations,
    allowed_vdi_operations,
    allowed_vif_operations,
    allowed_vm_operations,
    allowed_vtpm_operations,
)

__all__ = ["Records"]

Rule = Callable[[Database, Row], list[str]]

_RULES: dict[str, Rule] = {
    "SR": allowed_sr_operations,
    "VBD": allowed_vbd_operations,
    "VDI": allowed_vdi_operations,
    "VIF": allowed_vif_operations,
    "VM": allowed_vm_operations,
    "VM_appliance": allowed_appliance_operations,
    "VTPM": allowed_vtpm_operations,
    "host": allowed_host_operations,
    "pool": allowed_pool_operations,
}


class Records:
    """Reads whole records and single fields."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._ripples = Ripples(db, self._allowed)

    def follow_changes(self) -> None:
        """From now on, touch the objects whose possibilities changed with something else."""
        self._db.before_commit = self._ripples.spread

    def record(self, cls: str, row: Row) -> dict[str, object]:
        """Return the object's record, its own copy."""
        record = dict(row.fields)
        allowed = self._allowed(cls, row)
        if allowed is not None:
            record["allowed_operations"] = allowed
            self._ripples.remember(cls, row.ref, allowed)
        return record

    def _allowed(self, cls: str, row: Row) -> list[str] | None:
        rule = _RULES.get(cls)
        return None if rule is None else rule(self._db, row)

    def field(self, cls: str, ref: str, name: str) -> object:
        """Return one field as its getter does; ``HANDLE_INVALID`` when there is no such object."""
        row = self._db.row(cls, ref)
        if name == "allowed_operations" and cls in _RULES:
            return _RULES[cls](self._db, row)
        return row.fields[name]

    def all(self, cls: str) -> dict[str, dict[str, object]]:
        """Return every object of the class by its reference."""
        with self._db.lock:
            return {row.ref: self.record(cls, row) for row in self._db.rows(cls)}
