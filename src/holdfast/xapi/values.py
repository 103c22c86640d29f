"""What the pool client hands out besides the shared nouns: snapshots, read plans, tagged objects."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from holdfast.formats.cbt import iter_extents
from holdfast.model import (
    ChangeSource,
    Coverage,
    DiskUuid,
    Extent,
    JsonObject,
    Reference,
    VmUuid,
)

__all__ = ["CbtState", "NbdServer", "ReadPlan", "ReadTransport", "Tagged", "TaggedKind", "VmSnapshot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSnapshot:
    """A snapshot of a VM on the pool."""

    vm: VmUuid
    """The uuid of the snapshot itself."""
    of: VmUuid
    """The VM it was taken of."""
    name: str
    taken_at: datetime
    """By the pool's clock, UTC."""
    disks: Mapping[DiskUuid, DiskUuid]
    """Live disk to its snapshot."""
    record: JsonObject = field(repr=False)
    """The snapshot's own VM record."""
    warnings: tuple[str, ...] = ()
    """What a person should know about this snapshot; sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CbtState:
    """Whether a disk tracks its changes after we asked for it."""

    enabled: bool
    switched_on: bool
    """True when it was off before."""
    reason: str
    """One sentence for people: why it is off, or since when it is on."""


class ReadTransport(enum.Enum):
    """How bytes travel from the pool."""

    NBD = "nbd"
    """Only the wanted extents, over several connections."""
    STREAM = "stream"
    """One VHD export."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NbdServer:
    """A host that serves one disk over NBD, as ``VDI.get_nbd_info`` names it."""

    address: str
    port: int
    export_name: str = field(repr=False)
    """Carries the session, so it is not shown."""
    certificate_pem: str = field(repr=False)
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadPlan:
    """How a snapshot's disk will be read, and why not better. A value; reading it again changes nothing."""

    live: DiskUuid
    snapshot: DiskUuid
    size_bytes: int
    source: ChangeSource
    transport: ReadTransport
    coverage: Coverage
    reason: str
    """One sentence for people: where the knowledge comes from and why no better source was taken."""
    reference: Reference | None
    """What the changes are counted from; None when the whole disk is read."""
    wanted: Reference | None
    """What the changes should have been counted from, had the pool been able to."""
    force_full: bool
    blocks: NDArray[np.bool_] | None = field(repr=False)
    """One flag for each 64 KiB that will be read; None when only the export stream tells."""
    planned_bytes: int
    """How many bytes will be read at most."""
    reference_size_bytes: int | None = None
    """How large the disk was at the reference; what lies behind is zero where it is not read."""
    nbd_refusal: str = ""
    """Why the disk cannot be read over NBD, whatever way was taken; empty when it can."""

    def extents(self) -> Iterator[Extent]:
        """Yield what will be read, ascending, merged; nothing where only the export stream tells."""
        if self.blocks is not None:
            yield from iter_extents(self.blocks, size_bytes=self.size_bytes)

    def explain(self) -> str:
        """Return the plan as one line."""
        return f"{self.snapshot}: {self.source.value} over {self.transport.value}; {self.reason}"


class TaggedKind(enum.Enum):
    """The classes of objects that we create on a pool and find again by their ``other_config``."""

    VM = "VM"
    DISK = "VDI"
    VBD = "VBD"
    TASK = "task"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """An object on the pool that carries one of our keys in its ``other_config``."""

    kind: TaggedKind
    uuid: str
    name: str
    value: str
    is_snapshot: bool
