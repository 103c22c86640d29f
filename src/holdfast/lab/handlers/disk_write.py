"""Writes of an import onto a disk: zeros stay sparse, and what lies behind the end is the driver's affair."""

from __future__ import annotations

import numpy as np

from holdfast.lab.context import PoolCore
from holdfast.lab.rules import has_vhd_disks
from holdfast.lab.volumes import disk_uuid

__all__ = ["DiskWriter"]


class DiskWriter:
    """Puts pieces onto one disk."""

    def __init__(self, pool: PoolCore, vdi: str) -> None:
        self._disks = pool.disks
        self._name = disk_uuid(pool, vdi)
        self.size_bytes = pool.disks.size_bytes(self._name)
        self._has_hard_end = has_vhd_disks(pool.db, pool.db.text("VDI", vdi, "SR"))

    def write(self, offset_bytes: int, piece: memoryview) -> None:
        """Write the piece. ``DiskRangeInvalid`` behind the end; a plain image grows there, which nobody ever sees."""
        if not self._has_hard_end:
            piece = piece[: max(0, self.size_bytes - offset_bytes)]
        if len(piece) == 0:
            return
        if np.frombuffer(piece, dtype=np.uint8).any():
            self._disks.write(self._name, offset_bytes, piece)
        else:
            self._disks.zero(self._name, offset_bytes, len(piece))
