"""What we create on a pool, by kind; each such object has a ledger line before it exists."""

from __future__ import annotations

import enum

__all__ = ["RUN_TAG", "OwnedKind"]

RUN_TAG = "holdfast:run"
"""The key in ``other_config`` by which our objects on a pool are recognised, besides the ledger."""


class OwnedKind(enum.Enum):
    """The kinds of objects that a ledger line can stand for."""

    VM_SNAPSHOT = "vm-snapshot"
    """A snapshot of a VM, found by its unique name while its uuid is unknown."""
    DISK_SNAPSHOT = "disk-snapshot"
    """A disk of a snapshot, with its data or with change metadata only."""
    DISK = "disk"
    """A disk created by a restore."""
    VM = "vm"
    """A VM created by a restore."""
