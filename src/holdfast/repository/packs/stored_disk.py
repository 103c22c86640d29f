"""A disk as it lies in a repository: where its map is, what it cost, and which packs it needs.

Invariant: a stored disk is complete in itself and never changes; it travels through durable steps as JSON.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, field

import msgspec

from holdfast.core import ExitStatus, HoldfastError, from_builtins
from holdfast.model import FourSizes, JsonObject
from holdfast.repository.layout import PackId
from holdfast.repository.packs.pack_table import PackTable

__all__ = ["NodeAddress", "StoredDisk", "StoredDiskUnreadable"]


class StoredDiskUnreadable(HoldfastError):
    """A run's own record of a disk that it stored cannot be read."""

    code = "repository.stored-disk-unreadable"
    exit_status = ExitStatus.DAMAGED
    effect = "The run cannot publish this disk; existing restore points are untouched."
    advice = "Close the run and start a new one; what it stored is re-used."

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"the record of a stored disk cannot be read: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True, order=True)
class NodeAddress:
    """Where a node of a disk map lies."""

    pack: PackId
    slot: int


class _StoredDiskText(msgspec.Struct, frozen=True, kw_only=True):
    size_bytes: int
    root_pack: str
    root_slot: int
    content_hash: str
    sizes: dict[str, int]
    packs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDisk:
    """One disk at one moment, complete and durable."""

    size_bytes: int
    root: NodeAddress
    content_hash: str
    """Keyed hash of the map's root, in hex. Equal hashes mean equal disks; different ones say nothing."""
    sizes: FourSizes
    packs: PackTable = field(repr=False)

    def to_json(self) -> JsonObject:
        """Return the disk as plain values."""
        return {
            "size_bytes": self.size_bytes,
            "root_pack": self.root.pack.hex(),
            "root_slot": self.root.slot,
            "content_hash": self.content_hash,
            "sizes": dict(asdict(self.sizes)),
            "packs": base64.b64encode(self.packs.to_bytes()).decode(),
        }

    @classmethod
    def from_json(cls, value: JsonObject) -> StoredDisk:
        """Return the disk that ``to_json`` wrote; ``StoredDiskUnreadable`` for anything else."""
        try:
            text = from_builtins(value, _StoredDiskText)
            return cls(
                size_bytes=text.size_bytes,
                root=NodeAddress(PackId(bytes.fromhex(text.root_pack)), text.root_slot),
                content_hash=text.content_hash,
                sizes=FourSizes(**text.sizes),
                packs=PackTable.from_bytes(base64.b64decode(text.packs, validate=True)),
            )
        except (msgspec.ValidationError, ValueError, TypeError) as cause:
            raise StoredDiskUnreadable(reason=str(cause)) from cause
