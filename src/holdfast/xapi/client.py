"""The pool client: everything that Holdfast does on a pool goes through this class, by domain of the modules beside it.

Invariant: methods are safe to call from any thread, every wait listens to the client's cancellation, and every method
that removes something treats "gone already" as done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from holdfast.core import Cancellation, Clock, Entropy, Progress
from holdfast.model import (
    Disk,
    DiskReader,
    DiskSource,
    DiskUuid,
    JsonObject,
    NetworkUuid,
    PoolUuid,
    Reference,
    SrUuid,
    Vm,
    VmUuid,
)
from holdfast.xapi.address import Credentials, PoolAddress
from holdfast.xapi.inventory import Inventory
from holdfast.xapi.tls import TlsTrust
from holdfast.xapi.values import CbtState, ReadPlan, Tagged, TaggedKind, VmSnapshot

__all__ = ["PoolClient", "open_pool"]


def open_pool(
    address: PoolAddress,
    credentials: Credentials,
    trust: TlsTrust,
    *,
    clock: Clock,
    entropy: Entropy,
    cancel: Cancellation,
) -> PoolClient:
    """Return a client that is logged in at the pool's master.

    A member names its master and is followed there; the master must satisfy the same ``trust`` (a pin must list its
    certificate). Raises ``PoolUnreachable``, ``LoginRefused``, ``CertificateChanged`` or ``CertificateRefused``.
    """
    raise NotImplementedError


class PoolClient:
    """A logged-in pool. A context manager: leaving the block logs out."""

    @property
    def address(self) -> PoolAddress:
        """The master's address, which may differ from the one that was given."""
        raise NotImplementedError

    @property
    def pool(self) -> PoolUuid:
        """The uuid of the pool."""
        raise NotImplementedError

    def with_cancel(self, cancel: Cancellation) -> PoolClient:
        """Return a view of the same login whose waits listen to ``cancel``.

        Cleaning up after a cancelled run needs ``with_cancel(Cancellation())``. Closing the view does nothing.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Log out and drop every connection. Safe to call twice; never fails."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what is there

    def inventory(self) -> Inventory:
        """Return what the pool holds now, consistent in itself."""
        raise NotImplementedError

    def vm(self, uuid: VmUuid) -> Vm:
        """Return a VM as it is now; ``VmUnknown`` when it is gone."""
        raise NotImplementedError

    def disk(self, uuid: DiskUuid) -> Disk | None:
        """Return a disk as it is now, or None when it is gone. A cbt_metadata record counts as a disk."""
        raise NotImplementedError

    def describe_vm(self, uuid: VmUuid) -> JsonObject:
        """Return the VM's record and all that belongs to it, by XAPI's class names, for ``PointFacts.vm_record``.

        Keys: ``VM`` and ``VM_guest_metrics`` (records), ``VBD``, ``VIF``, ``VDI``, ``network``, ``VTPM`` (lists).
        """
        raise NotImplementedError

    def sr_free_bytes(self, sr: SrUuid) -> int:
        """Return what the SR has left, after asking it to look (``SR.scan``)."""
        raise NotImplementedError

    # --- tasks

    def call_async(self, method: str, *params: object) -> object:
        """Run ``Async.<method>`` and return its parsed result when the task has ended."""
        raise NotImplementedError

    def wait_task(self, task: str, *, operation: str) -> object:
        """Return the parsed result of a task once it succeeded. Raises its failure, ``TaskVanished`` or ``Cancelled``.

        A cancelled wait asks the pool to cancel the task too.
        """
        raise NotImplementedError

    # --- snapshots

    def enable_cbt(self, disk: DiskUuid) -> CbtState:
        """Switch changed block tracking on where the pool can; a refusal is an answer, not an error. Safe twice."""
        raise NotImplementedError

    def snapshot_vm(self, vm: VmUuid, *, name_label: str) -> VmSnapshot:
        """Take a snapshot of all disks of a VM and return it."""
        raise NotImplementedError

    def find_snapshots(self, vm: VmUuid, *, name_label: str) -> list[VmSnapshot]:
        """Return the VM's snapshots of that name: what a crash between call and answer may have left."""
        raise NotImplementedError

    def destroy_snapshot(self, snapshot: VmUuid, *, keep_disks: bool) -> None:
        """Remove a snapshot, with its disks unless they are kept. Patient with busy disks. Safe twice."""
        raise NotImplementedError

    def destroy_disk(self, disk: DiskUuid) -> None:
        """Remove a disk, snapshot or change metadata. Patient with busy disks. Safe twice."""
        raise NotImplementedError

    def data_destroy(self, disk: DiskUuid) -> None:
        """Remove a snapshot disk's data and keep its change metadata. Patient. Safe twice.

        The disk must not be attached any more: destroy the snapshot VM with ``keep_disks`` first.
        """
        raise NotImplementedError

    def tag(self, kind: TaggedKind, uuid: str, key: str, value: str) -> None:
        """Set ``other_config[key]`` of an object. Safe twice."""
        raise NotImplementedError

    def untag(self, kind: TaggedKind, uuid: str, key: str) -> None:
        """Remove ``other_config[key]`` of an object; gone already is fine."""
        raise NotImplementedError

    def find_tagged(self, key: str) -> list[Tagged]:
        """Return every VM, snapshot, disk, VBD and task whose ``other_config`` has ``key``."""
        raise NotImplementedError

    # --- metadata

    def export_metadata(self, vm: VmUuid) -> bytes:
        """Return the pool's own description of a VM (a tar with ``ova.xml``), TPM contents included."""
        raise NotImplementedError

    def import_metadata(self, metadata: bytes, *, disk_map: Mapping[DiskUuid, DiskUuid], restore: bool) -> VmUuid:
        """Make the VM described, its disks replaced through ``disk_map``; ``restore`` keeps uuid and MACs."""
        raise NotImplementedError

    # --- reading

    def plan_read(
        self, *, live: DiskUuid, snapshot: DiskUuid, reference: Reference | None, force_full: bool = False
    ) -> ReadPlan:
        """Return how the snapshot is best read: CBT over NBD, else a VHD difference, else in full; and why."""
        raise NotImplementedError

    def open_reader(self, plan: ReadPlan, *, cancel: Cancellation) -> DiskReader:
        """Return a reader for the plan; use it in a ``with`` block."""
        raise NotImplementedError

    # --- restore

    def create_disk(
        self,
        sr: SrUuid,
        *,
        size_bytes: int,
        name: str,
        description: str = "",
        other_config: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
    ) -> DiskUuid:
        """Create an empty disk and return its uuid."""
        raise NotImplementedError

    def write_disk(self, disk: DiskUuid, source: DiskSource, *, progress: Progress, cancel: Cancellation) -> None:
        """Fill a freshly created, empty disk with ``source``; judged by the task and by the disk afterwards."""
        raise NotImplementedError

    def create_vm(self, record: JsonObject) -> VmUuid:
        """Create a halted VM from a saved record, without disks and network cards."""
        raise NotImplementedError

    def set_bios_strings(self, vm: VmUuid, strings: Mapping[str, str]) -> None:
        """Give a VM its BIOS strings; once only, and only what the pool accepts."""
        raise NotImplementedError

    def create_vbd(
        self, vm: VmUuid, disk: DiskUuid, *, position: str, bootable: bool, read_only: bool, record: JsonObject
    ) -> None:
        """Attach a disk to a halted VM at a position; ``record`` is the saved VBD."""
        raise NotImplementedError

    def create_vif(self, vm: VmUuid, network: NetworkUuid, *, position: str, mac: str, record: JsonObject) -> None:
        """Give a VM a network card; an empty ``mac`` lets the pool choose. ``record`` is the saved VIF."""
        raise NotImplementedError

    def start_vm(self, vm: VmUuid) -> None:
        """Start a halted VM."""
        raise NotImplementedError

    def shutdown_vm(self, vm: VmUuid) -> None:
        """Switch a VM off, hard. Safe twice."""
        raise NotImplementedError

    def destroy_vm(self, vm: VmUuid, *, with_disks: bool = False) -> None:
        """Remove a halted VM, and its disks when asked. Safe twice."""
        raise NotImplementedError
