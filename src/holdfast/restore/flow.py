"""The restore run: plan, disks, VM, hand over; each a durable step.

The VM appears on the pool only when all of its disks are written. Invariant: until it is handed over, everything made
here stands in the ledger, so a restore that was killed or gave up leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from holdfast.core import Cancellation, Entropy, HoldfastError, limits
from holdfast.model import (
    RUN_TAG,
    DiskUuid,
    Finding,
    JsonObject,
    JsonValue,
    NetworkUuid,
    OwnedKind,
    Severity,
    SrUuid,
    VmUuid,
    nic_facts,
)
from holdfast.repository import PointDisk, Repository, RestorePoint
from holdfast.restore.plan import MacPolicy, RestorePlan, RestoreWishes, measure_data, plan_restore
from holdfast.runs import Ledger, StepContext
from holdfast.xapi import PoolClient, TaggedKind

__all__ = ["RESTORE_KIND", "RestoreArgs", "RestoreFlow", "RestoreResult", "fresh_generation_id", "wishes_of"]

RESTORE_KIND = "restore"
"""The kind under which runs of this flow are recorded."""


class RestoreArgs(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore run was asked to do, as its record keeps it."""

    pool: str
    repository: str
    point: str
    name: str | None = None
    sr: str | None = None
    network_map: dict[str, str] = {}
    mac: str = MacPolicy.AUTO.value
    start: bool = False


class RestoredDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk as it now is on the pool."""

    position: str
    name: str
    original: str
    disk: str
    size_bytes: int
    data_bytes: int


class RestoreResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the restore made."""

    vm: str
    vm_name: str
    point: str
    disks: tuple[RestoredDisk, ...]
    notes: tuple[str, ...]


class _Card(msgspec.Struct, frozen=True, kw_only=True):
    position: str
    mac: str
    network: str


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    """The plan as a recorded step: what was decided, once."""

    name: str
    srs: dict[str, str]
    data_bytes: dict[str, int]
    cards: tuple[_Card, ...]
    notes: tuple[str, ...]
    record: JsonObject
    start: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    context: StepContext
    args: RestoreArgs
    pool: PoolClient
    repository: Repository
    point: RestorePoint
    ledger: Ledger


class RestoreFlow:
    """The flow itself; register it with ``Runs`` under ``RESTORE_KIND``."""

    def __init__(
        self,
        *,
        open_pool: Callable[[str, Cancellation], PoolClient],
        open_repository: Callable[[str, Cancellation], Repository],
        ledger: Ledger,
        entropy: Entropy,
    ) -> None:
        self._open_pool = open_pool
        self._open_repository = open_repository
        self._ledger = ledger
        self._entropy = entropy

    def __call__(self, context: StepContext, args: JsonObject) -> JsonObject:
        """Run, and return a ``RestoreResult`` as JSON."""
        wanted = msgspec.convert(args, RestoreArgs)
        repository = self._open_repository(wanted.repository, context.cancel)
        with self._open_pool(wanted.pool, context.cancel) as pool:
            work = _Work(
                context=context,
                args=wanted,
                pool=pool,
                repository=repository,
                point=repository.point(wanted.point),
                ledger=self._ledger,
            )
            fresh = fresh_generation_id(self._entropy)
            order = msgspec.convert(context.step("plan", lambda: _decide(work, fresh_generation=fresh)), _Order)
            disks = _restore_disks(work, order)
            vm = context.step("vm", lambda: _make_vm(work, order, disks))
            assert isinstance(vm, str)
            context.step("hand over", lambda: _hand_over(work, order, VmUuid(vm)))
        result = RestoreResult(
            vm=vm, vm_name=order.name, point=work.point.id, disks=tuple(disks.values()), notes=order.notes
        )
        built: JsonObject = msgspec.to_builtins(result)
        return built


def fresh_generation_id(entropy: Entropy) -> str:
    """Return a new VM generation id in XAPI's form: two signed 64-bit numbers with a colon."""
    high, low = (int.from_bytes(entropy.token_bytes(8), "big", signed=True) for _ in range(2))
    return f"{high}:{low}"


def wishes_of(args: RestoreArgs) -> RestoreWishes:
    """Return the recorded arguments as the plan takes them."""
    return RestoreWishes(
        name=args.name, sr=args.sr, network_map=args.network_map, mac=MacPolicy(args.mac), start=args.start
    )


def _decide(work: _Work, *, fresh_generation: str) -> JsonValue:
    plan: RestorePlan = plan_restore(
        work.point,
        work.pool.inventory(),
        wishes_of(work.args),
        data_bytes=measure_data(work.repository, work.point, cancel=work.context.cancel),
        fresh_generation=fresh_generation,
    )
    order = _Order(
        name=plan.name,
        srs={disk.position: disk.sr.uuid for disk in plan.disks},
        data_bytes={disk.position: disk.data_bytes for disk in plan.disks},
        cards=tuple(
            _Card(position=nic.position, mac=nic.mac, network=nic.network.uuid)
            for nic in plan.nics
            if nic.network is not None
        ),
        notes=tuple(f"{note.fidelity.value}: {note.subject}: {note.text}" for note in plan.notes),
        record=plan.record,
        start=plan.start,
    )
    built: JsonValue = msgspec.to_builtins(order)
    return built


def _restore_disks(work: _Work, order: _Order) -> dict[str, RestoredDisk]:
    steps = [
        (f"disk {disk.facts.position}", lambda disk=disk: _restore_disk(work, order, disk)) for disk in work.point.disks
    ]
    recorded = work.context.steps_parallel(steps, at_once=limits.RUN_DISKS_AT_ONCE_MAX)
    restored = [msgspec.convert(each.unwrap(), RestoredDisk) for each in recorded]
    return {each.position: each for each in restored}


def _restore_disk(work: _Work, order: _Order, disk: PointDisk) -> JsonValue:
    """Make one disk and fill it. Safe to run twice: what an interrupted attempt left is removed first."""
    facts, run = disk.facts, work.context.run_id
    _remove_earlier_attempt(work, TaggedKind.DISK, position=facts.position)
    line = work.ledger.intend(
        run=run,
        kind=OwnedKind.DISK.value,
        pool=work.pool.pool,
        name=f"{order.name} disk {facts.position}",
        details={"point": work.point.id},
    )
    made = work.pool.create_disk(
        SrUuid(order.srs[facts.position]),
        size_bytes=facts.size_bytes,
        name=facts.name,
        description=str(facts.vdi_record.get("name_description", "")),
        other_config={RUN_TAG: f"{run} {facts.position}"},
    )
    work.ledger.made(line, external_id=made)
    source = work.repository.source(disk.stored, cancel=work.context.cancel)
    label = f"{order.name} disk {facts.position}"
    work.pool.write_disk(made, source, label=label, progress=work.context.progress, cancel=work.context.cancel)
    built: JsonValue = msgspec.to_builtins(
        RestoredDisk(
            position=facts.position,
            name=facts.name,
            original=facts.uuid,
            disk=made,
            size_bytes=facts.size_bytes,
            data_bytes=order.data_bytes[facts.position],
        )
    )
    return built


def _remove_earlier_attempt(work: _Work, kind: TaggedKind, *, position: str) -> None:
    for found in work.pool.find_tagged(RUN_TAG):
        if found.kind is kind and found.value == f"{work.context.run_id} {position}":
            if kind is TaggedKind.DISK:
                work.pool.destroy_disk(DiskUuid(found.uuid))
            else:
                work.pool.destroy_vm(VmUuid(found.uuid))


def _make_vm(work: _Work, order: _Order, disks: dict[str, RestoredDisk]) -> JsonValue:
    """Make the VM with its disks and cards. Safe to run twice: what an interrupted attempt left is removed first."""
    run = work.context.run_id
    _remove_earlier_attempt(work, TaggedKind.VM, position="vm")
    line = work.ledger.intend(
        run=run, kind=OwnedKind.VM.value, pool=work.pool.pool, name=order.name, details={"point": work.point.id}
    )
    other_config = order.record.get("other_config")
    tagged: JsonObject = dict(other_config) if isinstance(other_config, dict) else {}
    tagged[RUN_TAG] = f"{run} vm"
    vm = work.pool.create_vm({**order.record, "other_config": tagged})
    work.ledger.made(line, external_id=vm)
    for disk in work.point.disks:
        work.pool.create_vbd(
            vm,
            DiskUuid(disks[disk.facts.position].disk),
            position=disk.facts.position,
            bootable=disk.facts.bootable,
            read_only=disk.facts.vbd_record.get("mode") == "RO",
            record=disk.facts.vbd_record,
        )
    saved = {each.position: each.record for each in nic_facts(work.point.facts.vm_record)}
    for card in order.cards:
        work.pool.create_vif(
            vm, NetworkUuid(card.network), position=card.position, mac=card.mac, record=saved.get(card.position, {})
        )
    return str(vm)


def _hand_over(work: _Work, order: _Order, vm: VmUuid) -> None:
    """Give the VM to its owner: last settings, tags off, ledger closed, started when asked. Safe to run twice."""
    original = work.point.facts.vm_record.get("VM")
    strings = original.get("bios_strings") if isinstance(original, dict) else None
    if isinstance(strings, dict) and strings:
        try:
            work.pool.set_bios_strings(vm, {key: str(value) for key, value in strings.items()})
        except HoldfastError as error:
            _tell(work, order, f"BIOS strings could not be set: {error}")
    blocked = original.get("blocked_operations") if isinstance(original, dict) else None
    if isinstance(blocked, dict) and blocked:
        work.pool.set_blocked_operations(vm, {key: str(value) for key, value in blocked.items()})
    for line in work.ledger.lines(run=work.context.run_id):
        if line.external_id is not None:
            kind = TaggedKind.VM if line.kind == OwnedKind.VM.value else TaggedKind.DISK
            work.pool.untag(kind, line.external_id, RUN_TAG)
            work.ledger.keep(line.id, why="handed over to its owner")
    if order.start:
        try:
            work.pool.start_vm(vm)
        except HoldfastError as error:
            _tell(work, order, f"the VM is restored but could not be started: {error}")


def _tell(work: _Work, order: _Order, message: str) -> None:
    work.context.finding(Finding(severity=Severity.WARNING, subject=order.name, message=message))
