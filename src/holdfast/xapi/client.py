"""The pool client: everything that Holdfast does on a pool goes through this class, by domain of the modules beside it.

Invariant: methods are safe to call from any thread, every wait listens to the client's cancellation, and every method
that removes something treats "gone already" as done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from holdfast.core import Cancellation, Clock, Entropy, Progress
from holdfast.model import (
    Disk,
    DiskSource,
    DiskUuid,
    JsonObject,
    JsonValue,
    NetworkUuid,
    PoolUuid,
    Reference,
    SrUuid,
    Vm,
    VmUuid,
)
from holdfast.xapi import attachments, metadata, restore, snapshots, tags
from holdfast.xapi.address import Credentials, PoolAddress
from holdfast.xapi.calls import Calls
from holdfast.xapi.changes import plan_read
from holdfast.xapi.errors import VmUnknown
from holdfast.xapi.hosts import host_fingerprints
from holdfast.xapi.inventory import Inventory
from holdfast.xapi.nbd_door import NbdDoor
from holdfast.xapi.readers import PoolReader, open_reader
from holdfast.xapi.records import text
from holdfast.xapi.retry import Patience
from holdfast.xapi.session import PoolSession
from holdfast.xapi.tables import disk_at, inventory_of, read_tables, vm_at
from holdfast.xapi.tasks import call_async, wait_task
from holdfast.xapi.tls import TlsTrust
from holdfast.xapi.uploads import write_disk
from holdfast.xapi.values import CbtState, ReadPlan, Tagged, TaggedKind, VmSnapshot
from holdfast.xapi.vm_record import describe_vm

__all__ = ["PoolClient", "open_pool"]


def open_pool(
    address: PoolAddress,
    credentials: Credentials,
    trust: TlsTrust,
    *,
    clock: Clock,
    entropy: Entropy,
    cancel: Cancellation,
    patience: Patience = Patience.BRIEF,
    tell: Callable[[str], None] = lambda _: None,
) -> PoolClient:
    """Return a client that is logged in at the pool's master; it waits for a pool that is away as ``patience`` says,
    now and in every call, and gives ``tell`` a sentence when that may take minutes.

    A member names its master and is followed there; the master must satisfy the same ``trust`` (a pin must list its
    certificate). Raises ``PoolUnreachable``, ``LoginRefused``, ``CertificateChanged`` or ``CertificateRefused``.
    """
    session = PoolSession(address, credentials, trust)
    calls = Calls(session, clock=clock, entropy=entropy, cancel=cancel, patience=patience, tell=tell)
    calls.login()
    return PoolClient(calls, NbdDoor(), owns_login=True)


class PoolClient:
    """A logged-in pool. A context manager: leaving the block logs out."""

    def __init__(self, calls: Calls, door: NbdDoor, *, owns_login: bool) -> None:
        self._calls, self._door, self._owns_login = calls, door, owns_login
        self._pool: PoolUuid | None = None

    @property
    def address(self) -> PoolAddress:
        """The master's address, which may differ from the one that was given."""
        return self._calls.session.address

    @property
    def pool(self) -> PoolUuid:
        """The uuid of the pool."""
        if self._pool is None:
            self._pool = PoolUuid(text(next(iter(self._calls.table("pool").values())), "uuid"))
        return self._pool

    def host_fingerprints(self) -> tuple[str, ...]:
        """Return the SHA-256 of every host's certificate as the pool names them, for ``PinnedCertificate.others``.

        With them a pinned pool stays reachable when another host becomes its master.
        """
        return tuple(sorted(set(host_fingerprints(self._calls).values())))

    def with_cancel(self, cancel: Cancellation) -> PoolClient:
        """Return a view of the same login whose waits listen to ``cancel``.

        Cleaning up after a cancelled run needs ``with_cancel(Cancellation())``. Closing the view does nothing.
        """
        return PoolClient(self._calls.with_cancel(cancel), self._door, owns_login=False)

    def close(self) -> None:
        """Log out and drop every connection. Safe to call twice; never fails."""
        if self._owns_login:
            self._calls.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what is there

    def inventory(self) -> Inventory:
        """Return what the pool holds now, consistent in itself."""
        return inventory_of(read_tables(self._calls))

    def vm(self, uuid: VmUuid) -> Vm:
        """Return a VM as it is now; ``VmUnknown`` when it is gone."""
        ref = self._calls.try_ref("VM", uuid)
        if ref is None:
            raise VmUnknown(wanted=uuid, near=())
        return vm_at(self._calls, ref)

    def disk(self, uuid: DiskUuid) -> Disk | None:
        """Return a disk as it is now, or None when it is gone. A cbt_metadata record counts as a disk."""
        return disk_at(self._calls, uuid)

    def describe_vm(self, uuid: VmUuid) -> JsonObject:
        """Return the VM's record and all that belongs to it, by XAPI's class names, for ``PointFacts.vm_record``.

        Keys: ``VM`` and ``VM_guest_metrics`` (records), ``VBD``, ``VIF``, ``VDI``, ``network``, ``VTPM`` (lists).
        """
        return describe_vm(self._calls, self._calls.ref("VM", uuid))

    def sr_free_bytes(self, sr: SrUuid) -> int:
        """Return what the SR has left, after asking it to look (``SR.scan``)."""
        return restore.sr_free_bytes(self._calls, sr)

    # --- tasks

    def call_async(self, method: str, *params: object) -> JsonValue:
        """Run ``Async.<method>`` and return its parsed result when the task has ended."""
        return call_async(self._calls, method, *params)

    def wait_task(self, task: str, *, operation: str) -> JsonValue:
        """Return the parsed result of a task once it succeeded. Raises its failure, ``TaskVanished`` or ``Cancelled``.

        A cancelled wait asks the pool to cancel the task too.
        """
        return wait_task(self._calls, task, operation=operation)

    # --- snapshots

    def enable_cbt(self, disk: DiskUuid) -> CbtState:
        """Switch changed block tracking on where the pool can; a refusal is an answer, not an error. Safe twice."""
        return snapshots.enable_cbt(self._calls, disk)

    def snapshot_vm(self, vm: VmUuid, *, name_label: str) -> VmSnapshot:
        """Take a snapshot of all disks of a VM and return it."""
        return snapshots.snapshot_vm(self._calls, vm, name_label=name_label)

    def find_snapshots(self, vm: VmUuid, *, name_label: str) -> list[VmSnapshot]:
        """Return the VM's snapshots of that name: what a crash between call and answer may have left."""
        return snapshots.find_snapshots(self._calls, vm, name_label=name_label)

    def destroy_snapshot(self, snapshot: VmUuid, *, keep_disks: bool) -> None:
        """Remove a snapshot, with its disks unless they are kept. Patient with busy disks. Safe twice."""
        snapshots.destroy_snapshot(self._calls, snapshot, keep_disks=keep_disks)

    def destroy_disk(self, disk: DiskUuid) -> None:
        """Remove a disk, snapshot or change metadata. Patient with busy disks. Safe twice."""
        snapshots.destroy_disk(self._calls, disk)

    def data_destroy(self, disk: DiskUuid) -> None:
        """Remove a snapshot disk's data and keep its change metadata. Patient. Safe twice.

        The disk must not be attached any more: destroy the snapshot VM with ``keep_disks`` first.
        """
        snapshots.data_destroy(self._calls, disk)

    def tag(self, kind: TaggedKind, uuid: str, key: str, value: str) -> None:
        """Set ``other_config[key]`` of an object. Safe twice."""
        tags.tag(self._calls, kind, uuid, key, value)

    def untag(self, kind: TaggedKind, uuid: str, key: str) -> None:
        """Remove ``other_config[key]`` of an object; gone already is fine."""
        tags.untag(self._calls, kind, uuid, key)

    def find_tagged(self, key: str) -> list[Tagged]:
        """Return every VM, snapshot, disk, VBD and task whose ``other_config`` has ``key``."""
        return tags.find_tagged(self._calls, key)

    # --- metadata

    def export_metadata(self, vm: VmUuid) -> bytes:
        """Return the pool's own description of a VM (a tar with ``ova.xml``), TPM contents included."""
        return metadata.export_metadata(self._calls, vm)

    def import_metadata(self, description: bytes, *, disk_map: Mapping[DiskUuid, DiskUuid], restore: bool) -> VmUuid:
        """Make the VM described, its disks replaced through ``disk_map``; ``restore`` keeps uuid and MACs."""
        return metadata.import_metadata(
            self._calls, description, disk_map=disk_map, restore=restore, cancel=self._calls.cancel
        )

    # --- reading

    def plan_read(
        self, *, live: DiskUuid, snapshot: DiskUuid, reference: Reference | None, force_full: bool = False
    ) -> ReadPlan:
        """Return how the snapshot is best read: CBT over NBD, else a VHD difference, else in full; and why."""
        return plan_read(
            self._calls, self._door, live=live, snapshot=snapshot, reference=reference, force_full=force_full
        )

    def open_reader(self, plan: ReadPlan, *, cancel: Cancellation) -> PoolReader:
        """Return a reader for the plan, to be used in a ``with`` block; its ``plan`` says how it really reads.

        Where NBD worked when it was planned and does not any more, another way is planned and taken.
        """
        return open_reader(self._calls.with_cancel(cancel), self._door, plan)

    # --- restore

    def create_disk(
        self,
        sr: SrUuid,
        *,
        size_bytes: int,
        name: str,
        description: str = "",
        other_config: Mapping[str, str] | None = None,
        labels: Sequence[str] = (),
    ) -> DiskUuid:
        """Create an empty disk and return its uuid."""
        return restore.create_disk(
            self._calls,
            sr,
            size_bytes=size_bytes,
            name=name,
            description=description,
            other_config=other_config or {},
            tags=labels,
        )

    def write_disk(
        self, disk: DiskUuid, source: DiskSource, *, label: str = "", progress: Progress, cancel: Cancellation
    ) -> None:
        """Fill a freshly created, empty disk with ``source``; judged by the task and by the disk afterwards.

        ``label`` is what the progress calls it; the disk's uuid when left out.
        """
        calls = self._calls.with_cancel(cancel)
        write_disk(calls, disk, source, label=label, progress=progress, cancel=cancel)

    def detach_disk(self, disk: DiskUuid) -> None:
        """Take a disk away from the control domain, where a transfer may have left it attached. Patient. Safe twice."""
        attachments.detach_disk(self._calls, disk)

    def create_vm(self, record: JsonObject) -> VmUuid:
        """Create a halted VM from a saved record, without disks and network cards."""
        return restore.create_vm(self._calls, record)

    def set_bios_strings(self, vm: VmUuid, strings: Mapping[str, str]) -> None:
        """Give a VM its BIOS strings; once only, and only what the pool accepts."""
        restore.set_bios_strings(self._calls, vm, strings)

    def set_blocked_operations(self, vm: VmUuid, reasons: Mapping[str, str]) -> None:
        """Forbid operations on a VM, each with its reason; creating a VM does not carry them over."""
        restore.set_blocked_operations(self._calls, vm, reasons)

    def create_vbd(
        self, vm: VmUuid, disk: DiskUuid, *, position: str, bootable: bool, read_only: bool, record: JsonObject
    ) -> None:
        """Attach a disk to a halted VM at a position; ``record`` is the saved VBD."""
        restore.create_vbd(
            self._calls, vm, disk, position=position, bootable=bootable, read_only=read_only, record=record
        )

    def create_drive(self, vm: VmUuid, *, position: str, record: JsonObject) -> None:
        """Give a halted VM an empty CD drive at a position; ``record`` is the saved VBD."""
        restore.create_drive(self._calls, vm, position=position, record=record)

    def create_vif(self, vm: VmUuid, network: NetworkUuid, *, position: str, mac: str, record: JsonObject) -> None:
        """Give a VM a network card; an empty ``mac`` lets the pool choose. ``record`` is the saved VIF."""
        restore.create_vif(self._calls, vm, network, position=position, mac=mac, record=record)

    def start_vm(self, vm: VmUuid) -> None:
        """Start a halted VM."""
        restore.start_vm(self._calls, vm)

    def shutdown_vm(self, vm: VmUuid) -> None:
        """Switch a VM off, hard. Safe twice."""
        restore.shutdown_vm(self._calls, vm)

    def destroy_vm(self, vm: VmUuid, *, with_disks: bool = False) -> None:
        """Remove a halted VM, and its disks when asked. Safe twice."""
        restore.destroy_vm(self._calls, vm, with_disks=with_disks)
