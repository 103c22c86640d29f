"""What a restore was asked, what was decided once, and what came of it, as the run's record keeps them."""

from __future__ import annotations

import msgspec

from holdfast.model import JsonObject, JsonValue
from holdfast.restore.plan import MacPolicy, RestorePlan, RestoreWishes

__all__ = ["Card", "Order", "RestoreArgs", "RestoreResult", "RestoredDisk", "order_of", "wishes_of"]


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
    started: bool = False


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A network card that will be made."""

    position: str
    mac: str
    network: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The plan as a recorded step: what was decided, once."""

    name: str
    srs: dict[str, str]
    data_bytes: dict[str, int]
    cards: tuple[Card, ...]
    notes: tuple[str, ...]
    record: JsonObject
    from_description: bool
    start: bool


def wishes_of(args: RestoreArgs) -> RestoreWishes:
    """Return the recorded arguments as the plan takes them."""
    return RestoreWishes(
        name=args.name, sr=args.sr, network_map=args.network_map, mac=MacPolicy(args.mac), start=args.start
    )


def order_of(plan: RestorePlan) -> JsonValue:
    """Return the plan as the step's result, an ``Order`` as JSON."""
    order = Order(
        name=plan.name,
        srs={disk.position: disk.sr.uuid for disk in plan.disks},
        data_bytes={disk.position: disk.data_bytes for disk in plan.disks},
        cards=tuple(
            Card(position=nic.position, mac=nic.mac, network=nic.network.uuid)
            for nic in plan.nics
            if nic.network is not None
        ),
        notes=tuple(f"{note.fidelity.value}: {note.subject}: {note.text}" for note in plan.notes),
        record=plan.record,
        from_description=plan.from_description,
        start=plan.start,
    )
    built: JsonValue = msgspec.to_builtins(order)
    return built
