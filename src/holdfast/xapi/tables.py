"""The pool's tables read at one moment without a race: mark, read every class, then apply what changed meanwhile.

Invariant: the result equals the pool's database at the moment of the last event token; whatever was created, changed or
destroyed while the tables were being read is in it as it was then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.core import get_log
from holdfast.model import (
    Disk,
    DiskUuid,
    JsonObject,
    Network,
    SrUuid,
    Vm,
)
from holdfast.xapi.calls import Calls
from holdfast.xapi.inventory import Inventory
from holdfast.xapi.records import (
    NULL_REF,
    as_object,
    as_text,
    disk_from,
    flag,
    host_from,
    integer,
    network_from,
    nic_from,
    pool_from,
    refs,
    sr_from,
    text,
    vm_disk_from,
    vm_from,
)

__all__ = ["Tables", "disk_at", "inventory_of", "read_tables", "vm_at"]

_log = get_log(__name__)

_CLASSES = ("pool", "host", "SR", "network", "VM", "VBD", "VIF", "VDI")
_READS_MAX = 3
"""How often the tables are read when the pool's own counts disagree with what we hold."""
_EVENT_WAIT_S = 5.0
"""The mark itself is an event, so the answer comes at once; this bounds a pool that lost it."""

Tables = dict[str, dict[str, JsonObject]]
"""Class, as in calls, to records by reference."""


def read_tables(calls: Calls) -> Tables:
    """Return the tables that an inventory is made of."""
    for attempt in range(_READS_MAX):
        tables, counts = _read_once(calls)
        differing = [kind for kind in _CLASSES if counts.get(kind.lower(), len(tables[kind])) != len(tables[kind])]
        if not differing:
            return tables
        _log.info("pool.inventory-drifted", classes=",".join(differing), attempt=attempt + 1)
    # A count that never fits is a disagreement inside the pool (rows without an event); each table on its own is right.
    return {kind: calls.table(kind) for kind in _CLASSES}


def _read_once(calls: Calls) -> tuple[Tables, Mapping[str, int]]:
    pool = next(iter(calls.table("pool")))
    token = as_text(calls.call("event.inject", "pool", pool), what="event.inject")
    tables = {kind: calls.table(kind) for kind in _CLASSES}
    answer = as_object(
        calls.call("event.from", [kind.lower() for kind in _CLASSES], token, _EVENT_WAIT_S), what="event.from"
    )
    by_lower = {kind.lower(): tables[kind] for kind in _CLASSES}
    events = answer.get("events")
    for event in events if isinstance(events, list) else []:
        _apply(as_object(event, what="event"), by_lower)
    counted = as_object(answer.get("valid_ref_counts"), what="valid_ref_counts")
    return tables, {kind: integer(counted, kind) for kind in counted}


def _apply(event: JsonObject, by_lower: Mapping[str, dict[str, JsonObject]]) -> None:
    table = by_lower.get(text(event, "class").lower())
    if table is None:
        return
    ref = text(event, "ref")
    if text(event, "operation") == "del":
        table.pop(ref, None)
    else:
        table[ref] = as_object(event.get("snapshot"), what="event snapshot")


def inventory_of(tables: Tables) -> Inventory:
    """Return the value that people and decisions look at."""
    networks = {ref: network_from(record) for ref, record in tables["network"].items()}
    vms = [_vm(ref, tables, networks) for ref, record in tables["VM"].items() if _is_vm(record)]
    return Inventory(
        pool=pool_from(next(iter(tables["pool"].values())), hosts=tables["host"], srs=tables["SR"]),
        hosts=tuple(sorted(map(host_from, tables["host"].values()), key=lambda each: each.name)),
        srs=tuple(sorted(map(sr_from, tables["SR"].values()), key=lambda each: each.name)),
        networks=tuple(sorted(networks.values(), key=lambda each: each.name)),
        vms=tuple(sorted(vms, key=lambda each: (each.name, each.uuid))),
    )


def _is_vm(record: JsonObject) -> bool:
    return not (
        flag(record, "is_a_template") or flag(record, "is_a_snapshot", False) or flag(record, "is_control_domain")
    )


def _vm(ref: str, tables: Tables, networks: Mapping[str, Network]) -> Vm:
    record = tables["VM"][ref]
    vbds = _present(refs(record, "VBDs"), tables["VBD"])
    vifs = _present(refs(record, "VIFs"), tables["VIF"])
    return vm_from(
        record,
        disks=[vm_disk_from(vbd, disk) for vbd in vbds if (disk := _disk_of(vbd, tables)) is not None],
        nics=[nic_from(vif, network=networks.get(text(vif, "network"))) for vif in vifs],
    )


def _present(wanted: Iterable[str], table: Mapping[str, JsonObject]) -> list[JsonObject]:
    return [table[ref] for ref in wanted if ref in table]


def _disk_of(vbd: JsonObject, tables: Tables) -> Disk | None:
    record = tables["VDI"].get(text(vbd, "VDI", NULL_REF))
    if record is None or text(vbd, "type") != "Disk":
        return None
    sr = tables["SR"].get(text(record, "SR"))
    origin = tables["VDI"].get(text(record, "snapshot_of", NULL_REF))
    return disk_from(
        record,
        sr=SrUuid(text(sr, "uuid") if sr is not None else ""),
        snapshot_of=DiskUuid(text(origin, "uuid")) if origin is not None else None,
    )


def disk_at(calls: Calls, uuid: DiskUuid) -> Disk | None:
    """Return one disk as it is now, or None when it is gone."""
    ref = calls.try_ref("VDI", uuid)
    record = calls.try_record("VDI", ref) if ref is not None else None
    if record is None:
        return None
    origin = calls.try_record("VDI", text(record, "snapshot_of", NULL_REF))
    return disk_from(
        record,
        sr=SrUuid(calls.uuid("SR", text(record, "SR"))),
        snapshot_of=DiskUuid(text(origin, "uuid")) if origin is not None else None,
    )


def vm_at(calls: Calls, ref: str) -> Vm:
    """Return one VM as it is now, read by itself; templates and snapshots too. ``ObjectGone`` when it is gone."""
    record = calls.record("VM", ref)
    tables: Tables = {"VM": {ref: record}, "VBD": {}, "VIF": {}, "VDI": {}, "SR": {}, "network": {}}
    for kind, owner, field in (
        ("VBD", "VM", "VBDs"),
        ("VIF", "VM", "VIFs"),
        ("VDI", "VBD", "VDI"),
        ("VDI", "VDI", "snapshot_of"),
        ("SR", "VDI", "SR"),
        ("network", "VIF", "network"),
    ):
        for each in _named_by(tables[owner].values(), field):
            found = None if each in tables[kind] else calls.try_record(kind, each)
            if found is not None:
                tables[kind][each] = found
    networks = {each: network_from(network) for each, network in tables["network"].items()}
    return _vm(ref, tables, networks)


def _named_by(records: Iterable[JsonObject], field: str) -> list[str]:
    named: list[str] = []
    for record in records:
        value = record.get(field)
        named += [str(each) for each in value] if isinstance(value, list) else [str(value)]
    return named
