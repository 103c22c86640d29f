"""Identities are types, never bare strings, so two of them cannot be exchanged unseen."""

from __future__ import annotations

from typing import NewType

from holdfast.core import Clock, Entropy

__all__ = [
    "DiskUuid",
    "HostUuid",
    "NetworkUuid",
    "PointId",
    "PoolUuid",
    "RepositoryId",
    "RunId",
    "SrUuid",
    "VmUuid",
    "new_run_id",
]

PoolUuid = NewType("PoolUuid", str)
HostUuid = NewType("HostUuid", str)
SrUuid = NewType("SrUuid", str)
NetworkUuid = NewType("NetworkUuid", str)
VmUuid = NewType("VmUuid", str)
DiskUuid = NewType("DiskUuid", str)
"""The uuid of a VDI: of a live disk, a snapshot or a bare cbt_metadata record."""

RepositoryId = NewType("RepositoryId", str)
"""32 lower-case hex digits, drawn when the repository is created."""

PointId = NewType("PointId", str)
"""The restore point's name for people and objects: ``20261120T090820Z-3f9a1c2e``."""

RunId = NewType("RunId", str)
"""One execution of a job: ``r-20261120-090820-5c1d``; sorts by time, short enough to read aloud."""


def new_run_id(*, clock: Clock, entropy: Entropy) -> RunId:
    """Return a fresh run id."""
    return RunId(f"r-{clock.now():%Y%m%d-%H%M%S}-{entropy.token_bytes(3).hex()}")
