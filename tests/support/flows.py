"""A pool and a ledger in memory: what the flows and the sweep are tested on where no socket is needed.

The pool keeps contents of disks as bytes, knows what changed between two of them, and fails on demand. It stands for
``PoolClient`` in the calls that flows make; what those calls do to a real XAPI is the contract suite's business.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

from holdfast.core import BLOCK_BYTES, Cancellation, ManualClock, Progress
from holdfast.model import (
    RUN_TAG,
    ChangeSource,
    Coverage,
    DataRun,
    Disk,
    DiskSource,
    DiskUuid,
    JsonObject,
    Network,
    NetworkUuid,
    Nic,
    Pool,
    PoolUuid,
    PowerState,
    Reference,
    RunId,
    Sr,
    SrUuid,
    Vm,
    VmDisk,
    VmUuid,
)
from holdfast.model.ids import HostUuid
from holdfast.runs import LedgerId, LedgerLine, LedgerState
from holdfast.xapi import (
    CbtState,
    Inventory,
    PoolClient,
    ReadPlan,
    ReadTransport,
    Tagged,
    TaggedKind,
    VmSnapshot,
    VmUnknown,
)

POOL = PoolUuid("pool-1")
NOW = datetime.fromisoformat("2026-11-20T09:00:00+00:00")


class MemoryLedger:
    """See ``Ledger``."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self._lines: dict[int, LedgerLine] = {}
        self._ids = itertools.count(1)
        self._clock = clock or ManualClock(NOW)

    def intend(self, *, run: RunId, pool: PoolUuid, kind: str, name: str, details: JsonObject) -> LedgerId:
        for line in self.open_lines(pool=pool, run=run):
            if (line.kind, line.name) == (kind, name):
                return line.id
        id, now = LedgerId(next(self._ids)), self._clock.now()
        self._lines[id] = LedgerLine(
            id=id,
            run_id=run,
            pool=pool,
            kind=kind,
            name=name,
            details=details,
            external_id=None,
            state=LedgerState.INTENDED,
            why="",
            created=now,
            updated=now,
        )
        return id

    def made(self, line: LedgerId, *, external_id: str) -> None:
        self._change(line, state=LedgerState.MADE, external_id=external_id)

    def gone(self, line: LedgerId) -> None:
        self._change(line, state=LedgerState.GONE)

    def keep(self, line: LedgerId, *, why: str) -> None:
        self._change(line, state=LedgerState.KEPT, why=why)

    def get(self, line: LedgerId) -> LedgerLine:
        return self._lines[line]

    def lines(
        self,
        *,
        pool: PoolUuid | None = None,
        run: RunId | None = None,
        states: Sequence[LedgerState] = tuple(LedgerState),
    ) -> list[LedgerLine]:
        return [
            line
            for line in tuple(self._lines.values())
            if pool in (None, line.pool) and run in (None, line.run_id) and line.state in states
        ]

    def open_lines(self, *, pool: PoolUuid | None = None, run: RunId | None = None) -> list[LedgerLine]:
        return self.lines(pool=pool, run=run, states=(LedgerState.INTENDED, LedgerState.MADE))

    def _change(self, line: LedgerId, **changes: Any) -> None:
        self._lines[line] = replace(self._lines[line], updated=self._clock.now(), **changes)


@dataclass
class _Content:
    data: bytes
    has_data: bool = True


@dataclass
class MemoryPool:
    """See ``PoolClient``. ``calls`` lists what changed something; ``fail`` makes the next calls of a method raise."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    pool: PoolUuid = POOL
    supports_cbt: bool = True
    nbd_refusal: str = ""
    calls: list[str] = field(default_factory=list)
    vms: dict[str, Vm] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    networks: list[Network] = field(default_factory=list)
    srs: list[Sr] = field(default_factory=list)
    tags: dict[tuple[TaggedKind, str], dict[str, str]] = field(default_factory=dict)
    metadata: bytes = b"tar"
    _contents: dict[str, _Content] = field(default_factory=dict)
    _failures: dict[str, list[BaseException | None]] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.srs.append(sr())
        self.networks.append(network("net-1", "lan"))

    @property
    def client(self) -> PoolClient:
        """The pool as the flows take it."""
        return cast(PoolClient, self)

    def fail(self, method: str, *errors: BaseException | None) -> None:
        """Let the next calls of the method raise, one error each; None lets a call through."""
        self._failures.setdefault(method, []).extend(errors)

    def add_vm(self, name: str, *contents: bytes, uuid: str | None = None, **changes: Any) -> Vm:
        """Add a running VM with a disk for each content."""
        disks = tuple(
            vm_disk(str(position), self.add_disk(f"{name}-disk-{position}", data))
            for position, data in enumerate(contents)
        )
        made = vm(name, uuid=uuid or f"vm-{name}", disks=disks, **changes)
        self.vms[made.uuid] = made
        return made

    def add_disk(self, uuid: str, data: bytes, **changes: Any) -> Disk:
        """Add a disk with this content."""
        made = disk(uuid, size_bytes=len(data), **changes)
        self.disks[uuid] = made
        self._contents[uuid] = _Content(data)
        return made

    def write(self, uuid: str, data: bytes) -> None:
        """Let a guest replace the content of a disk; its size may change."""
        self._contents[uuid].data = data
        self.disks[uuid] = replace(self.disks[uuid], size_bytes=len(data))

    def content(self, uuid: str) -> bytes:
        """Return what a disk holds."""
        return self._contents[uuid].data

    def marked(self) -> list[str]:
        """Return what carries the mark of a run."""
        return sorted(uuid for (_, uuid), tags in self.tags.items() if RUN_TAG in tags)

    # --- what flows call

    def __enter__(self) -> MemoryPool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inventory(self) -> Inventory:
        self._called("inventory", changes=False)
        live = [self.vm(each.uuid) for each in self.vms.values() if not each.record.get("is_a_snapshot")]
        return Inventory(
            pool=Pool(uuid=POOL, name="main street", master=HostUuid("host-1"), default_sr=SrUuid("sr-1")),
            hosts=(),
            srs=tuple(self.srs),
            networks=tuple(self.networks),
            vms=tuple(live),
        )

    def vm(self, uuid: VmUuid) -> Vm:
        self._called("vm", changes=False)
        if uuid not in self.vms:
            raise VmUnknown(wanted=uuid, near=())
        found = self.vms[uuid]
        disks = [replace(each, disk=self.disks[each.disk.uuid]) for each in found.disks if each.disk.uuid in self.disks]
        return replace(found, disks=tuple(disks))

    def disk(self, uuid: DiskUuid) -> Disk | None:
        self._called("disk", changes=False)
        return self.disks.get(uuid)

    def describe_vm(self, uuid: VmUuid) -> JsonObject:
        found = self.vm(uuid)
        return {"VM": found.record, "VBD": [each.vbd_record for each in found.disks]}

    def export_metadata(self, uuid: VmUuid) -> bytes:
        self._called("export_metadata", changes=False)
        return self.metadata

    def enable_cbt(self, uuid: DiskUuid) -> CbtState:
        self._called("enable_cbt", uuid)
        if self.supports_cbt:
            self.disks[uuid] = replace(self.disks[uuid], cbt_enabled=True)
        return CbtState(enabled=self.supports_cbt, switched_on=self.supports_cbt, reason="as the SR can")

    def snapshot_vm(self, uuid: VmUuid, *, name_label: str) -> VmSnapshot:
        self._called("snapshot_vm", name_label, before=False)
        made = self._snapshot(uuid, name_label)
        self._raise_if_armed("snapshot_vm")
        return made

    def find_snapshots(self, uuid: VmUuid, *, name_label: str) -> list[VmSnapshot]:
        return [self._describe(each) for each in self.vms.values() if each.name == name_label]

    def destroy_snapshot(self, uuid: VmUuid, *, keep_disks: bool) -> None:
        self._called("destroy_snapshot", uuid)
        gone = self.vms.pop(uuid, None)
        self.tags.pop((TaggedKind.VM, uuid), None)
        for each in gone.disks if gone and not keep_disks else ():
            self.destroy_disk(each.disk.uuid)

    def destroy_vm(self, uuid: VmUuid) -> None:
        self._called("destroy_vm", uuid)
        self.vms.pop(uuid, None)
        self.tags.pop((TaggedKind.VM, uuid), None)

    def destroy_disk(self, uuid: DiskUuid) -> None:
        self._called("destroy_disk", uuid)
        assert not any(uuid == each.disk.uuid for found in self.vms.values() for each in found.disks), "in use"
        self.disks.pop(uuid, None)
        self.tags.pop((TaggedKind.DISK, uuid), None)

    def data_destroy(self, uuid: DiskUuid) -> None:
        self._called("data_destroy", uuid)
        self.disks[uuid] = replace(self.disks[uuid], kind="cbt_metadata")
        self._contents[uuid].has_data = False

    def tag(self, kind: TaggedKind, uuid: str, key: str, value: str) -> None:
        self._called("tag", uuid)
        self.tags.setdefault((kind, uuid), {})[key] = value

    def untag(self, kind: TaggedKind, uuid: str, key: str) -> None:
        self._called("untag", uuid)
        self.tags.get((kind, uuid), {}).pop(key, None)

    def find_tagged(self, key: str) -> list[Tagged]:
        return [
            Tagged(kind=kind, uuid=uuid, name="", value=tags[key], is_snapshot=False)
            for (kind, uuid), tags in self.tags.items()
            if key in tags
        ]

    def plan_read(
        self, *, live: DiskUuid, snapshot: DiskUuid, reference: Reference | None, force_full: bool = False
    ) -> ReadPlan:
        self._called("plan_read", changes=False)
        usable = reference is not None and not force_full and reference.snapshot in self.disks
        return ReadPlan(
            live=live,
            snapshot=snapshot,
            size_bytes=self.disks[snapshot].size_bytes,
            source=ChangeSource.CBT if usable else ChangeSource.FULL,
            transport=ReadTransport.STREAM if self.nbd_refusal else ReadTransport.NBD,
            coverage=Coverage.CHANGES if usable else Coverage.WHOLE,
            reason="the pool tracked it." if usable else "read in full.",
            reference=reference if usable else None,
            wanted=reference,
            force_full=force_full,
            blocks=None,
            planned_bytes=self.disks[snapshot].size_bytes,
            nbd_refusal=self.nbd_refusal,
        )

    @contextmanager
    def open_reader(self, plan: ReadPlan, *, cancel: Cancellation) -> Iterator[MemoryReader]:
        self._called("open_reader", changes=False)
        old = self.content(plan.reference.snapshot) if plan.reference else b""
        yield MemoryReader(plan, self.content(plan.snapshot), old, self)

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
        self._called("create_disk", name, before=False)
        uuid = f"new-disk-{next(self._ids)}"
        self.add_disk(uuid, bytes(size_bytes), name=name)
        self.tags[(TaggedKind.DISK, uuid)] = dict(other_config or {})
        self._raise_if_armed("create_disk")
        return DiskUuid(uuid)

    def write_disk(
        self, uuid: DiskUuid, source: DiskSource, *, label: str = "", progress: Progress, cancel: Cancellation
    ) -> None:
        self._called("write_disk", label)
        image = bytearray(source.size_bytes)
        for run in source.runs():
            image[run.offset_bytes : run.offset_bytes + run.length_bytes] = run.data
        self._contents[uuid].data = bytes(image)

    def detach_disk(self, uuid: DiskUuid) -> None:
        self._called("detach_disk", uuid)

    def create_vm(self, record: JsonObject) -> VmUuid:
        self._called("create_vm", str(record["name_label"]), before=False)
        uuid = f"new-vm-{next(self._ids)}"
        self.vms[uuid] = vm(str(record["name_label"]), uuid=uuid, power_state=PowerState.HALTED, record=dict(record))
        self.tags[(TaggedKind.VM, uuid)] = dict(cast("dict[str, str]", record["other_config"]))
        self._raise_if_armed("create_vm")
        return VmUuid(uuid)

    def import_metadata(self, description: bytes, *, disk_map: Mapping[DiskUuid, DiskUuid], restore: bool) -> VmUuid:
        self._called("import_metadata", changes=True)
        uuid = self.create_vm({"name_label": "imported", "other_config": {}, "VTPMs": ["OpaqueRef:tpm"]})
        for position, new in enumerate(disk_map.values()):
            self.create_vbd(uuid, new, position=str(position), bootable=False, read_only=False, record={})
        return uuid

    def create_vbd(
        self, uuid: VmUuid, disk: DiskUuid, *, position: str, bootable: bool, read_only: bool, record: JsonObject
    ) -> None:
        self._called("create_vbd", position)
        place = replace(vm_disk(position, self.disks[disk]), bootable=bootable, read_only=read_only)
        self.vms[uuid] = replace(self.vms[uuid], disks=(*self.vms[uuid].disks, place))

    def create_drive(self, uuid: VmUuid, *, position: str, record: JsonObject) -> None:
        self._called("create_drive", position)

    def create_vif(self, uuid: VmUuid, network: NetworkUuid, *, position: str, mac: str, record: JsonObject) -> None:
        self._called("create_vif", position)
        card = Nic(position=position, mac=mac, network=None, record=record)
        self.vms[uuid] = replace(self.vms[uuid], nics=(*self.vms[uuid].nics, card))

    def set_bios_strings(self, uuid: VmUuid, strings: Mapping[str, str]) -> None:
        self._called("set_bios_strings", uuid)
        self.vms[uuid] = replace(self.vms[uuid], record={**self.vms[uuid].record, "bios_strings": dict(strings)})

    def set_blocked_operations(self, uuid: VmUuid, reasons: Mapping[str, str]) -> None:
        self._called("set_blocked_operations", uuid)

    def start_vm(self, uuid: VmUuid) -> None:
        self._called("start_vm", uuid)
        self.vms[uuid] = replace(self.vms[uuid], power_state=PowerState.RUNNING)

    def _snapshot(self, uuid: VmUuid, name_label: str) -> VmSnapshot:
        number = next(self._ids)
        frozen = []
        for each in self.vm(uuid).disks:
            frozen_uuid = f"{each.disk.uuid}-snap-{number}"
            copy = replace(each.disk, uuid=DiskUuid(frozen_uuid), is_snapshot=True, snapshot_of=each.disk.uuid)
            self.disks[frozen_uuid] = copy
            self._contents[frozen_uuid] = _Content(self.content(each.disk.uuid))
            frozen.append(replace(each, disk=copy))
        made = vm(name_label, uuid=f"snap-{number}", disks=tuple(frozen), record={"is_a_snapshot": True, "of": uuid})
        self.vms[made.uuid] = made
        return self._describe(made)

    def _describe(self, made: Vm) -> VmSnapshot:
        return VmSnapshot(
            vm=made.uuid,
            of=VmUuid(str(made.record["of"])),
            name=made.name,
            taken_at=self.clock.now(),
            disks={each.disk.snapshot_of or each.disk.uuid: each.disk.uuid for each in made.disks},
            record=made.record,
        )

    def _called(self, method: str, what: str = "", *, changes: bool = True, before: bool = True) -> None:
        if changes:
            self.calls.append(f"{method} {what}".strip())
        if before:
            self._raise_if_armed(method)

    def _raise_if_armed(self, method: str) -> None:
        waiting = self._failures.get(method)
        error = waiting.pop(0) if waiting else None
        if error is not None:
            raise error


class MemoryReader:
    """See ``PoolReader``: the blocks of a disk that differ from an older content."""

    def __init__(self, plan: ReadPlan, data: bytes, old: bytes, pool: MemoryPool) -> None:
        self.plan, self._data, self._old, self._pool = plan, data, old, pool
        self.size_bytes, self.coverage, self.planned_bytes = len(data), plan.coverage, len(data)

    def runs(self) -> Iterator[DataRun]:
        for start in range(0, len(self._data), BLOCK_BYTES):
            self._pool._raise_if_armed("runs")
            block = self._data[start : start + BLOCK_BYTES]
            if block != self._old[start : start + BLOCK_BYTES]:
                yield DataRun(start, block)


def blocks(*contents: int) -> bytes:
    """Return a disk whose blocks are filled with these numbers."""
    return b"".join(bytes([each]) * BLOCK_BYTES for each in contents)


def sr(**changes: Any) -> Sr:
    facts: dict[str, Any] = {
        "uuid": SrUuid("sr-1"),
        "name": "local",
        "kind": "ext",
        "content_type": "user",
        "shared": False,
        "physical_size_bytes": 1 << 40,
        "free_bytes": 1 << 39,
        "supports_cbt": True,
    }
    return Sr(**{**facts, **changes})


def network(uuid: str, name: str) -> Network:
    return Network(uuid=NetworkUuid(uuid), name=name, bridge="xenbr0", nbd=True)


def disk(uuid: str, **changes: Any) -> Disk:
    facts: dict[str, Any] = {
        "name": uuid,
        "sr": SrUuid("sr-1"),
        "size_bytes": BLOCK_BYTES,
        "used_bytes": 0,
        "kind": "user",
        "cbt_enabled": False,
        "is_snapshot": False,
        "snapshot_of": None,
        "record": {"uuid": uuid},
    }
    return Disk(uuid=DiskUuid(uuid), **{**facts, **changes})


def vm_disk(position: str, of: Disk) -> VmDisk:
    record: JsonObject = {"userdevice": position, "type": "Disk", "mode": "RW"}
    return VmDisk(position=position, bootable=position == "0", read_only=False, disk=of, vbd_record=record)


def vm(name: str, *, uuid: str | None = None, **changes: Any) -> Vm:
    facts: dict[str, Any] = {
        "description": "",
        "power_state": PowerState.RUNNING,
        "tags": (),
        "memory_bytes": 1 << 30,
        "vcpus": 2,
        "disks": (),
        "nics": (),
        "record": {"name_label": name},
    }
    return Vm(uuid=VmUuid(uuid or f"vm-{name}"), name=name, **{**facts, **changes})
