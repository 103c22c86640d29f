"""Putting a dump of a pool's database back: what of it fits this machine, and the reboot that makes it the truth.

A restored database never decides what storage holds: the disks that are there are shown, and no others. Invariant:
until the reboot nothing has changed; after it every session and task is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from holdfast.lab.calls import halt_vm
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.dump import Dump
from holdfast.lab.errors import ApiFailure, internal_failure
from holdfast.lab.hosts import restart_toolstack

__all__ = ["REBOOT_DELAY_S", "RestorePlan", "apply_restore", "plan_restore"]

REBOOT_DELAY_S = 30.0
"""How long a host goes on after it took a dump, before it reboots with it."""

_OF_THE_HOST = ("address", "hostname", "software_version", "cpu_info", "capabilities", "enabled", "https_only")
"""What a host knows about itself, whatever a backup says."""

_OF_THE_NETWORK = ("IP", "netmask", "gateway", "DNS", "IPv6", "currently_attached", "ip_configuration_mode")

_OF_THE_STORAGE = ("virtual_size", "physical_utilisation", "managed", "read_only", "type", "sm_config", "cbt_enabled")
"""What a scan reads from the repository itself."""

_ENDED: Fields = {"resident_on": NULL_REF, "domid": -1, "power_state": "Halted", "guest_metrics": NULL_REF}

Tables = dict[str, dict[str, Fields]]


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """The rows that will be the pool's, by class and reference."""

    tables: Tables


def plan_restore(pool: PoolCore, dump: Dump) -> RestorePlan:
    """Return what a restore would make of the pool. ``ApiFailure`` when the dump does not fit this pool or machine."""
    if not dump.is_compatible:
        raise ApiFailure("RESTORE_INCOMPATIBLE_VERSION")
    tables: Tables = {cls: dict(dump.tables.get(cls, {})) for cls in pool.db.datamodel.classes}
    for transient in ("session", "task", "message"):
        del tables[transient]
    if not tables["pool"]:
        raise internal_failure("hd")
    master = str(next(iter(tables["pool"].values()))["master"])
    if master not in tables["host"]:
        raise ApiFailure("HANDLE_INVALID", "host", master)
    tables = _renamed(tables, {master: pool.master_ref})
    _forget_members(tables, pool.master_ref)
    host = tables["host"][pool.master_ref]
    host["uuid"] = pool.db.text("host", pool.master_ref, "uuid")
    control_domain = str(host["control_domain"])
    if control_domain not in tables["VM"]:
        raise ApiFailure("HANDLE_INVALID", "VM", control_domain)
    tables["VM"][control_domain]["uuid"] = pool.db.text("VM", pool.control_domain_ref, "uuid")
    _fit_interfaces(pool, tables)
    return RestorePlan(tables)


def _renamed(tables: Tables, names: dict[str, str]) -> Tables:
    """Return the tables with references renamed, in the rows' names and in their fields."""

    def rename(value: object) -> object:
        match value:
            case str():
                return names.get(value, value)
            case list():
                return [rename(item) for item in value]
            case dict():
                return {key: rename(item) for key, item in value.items()}
            case _:
                return value

    return {
        cls: {names.get(ref, ref): cast(Fields, rename(fields)) for ref, fields in rows.items()}
        for cls, rows in tables.items()
    }


def _forget_members(tables: Tables, master: str) -> None:
    """A restored pool is its master alone; the others join again."""
    tables["host"] = {master: tables["host"][master]}
    tables["PIF"] = {ref: fields for ref, fields in tables["PIF"].items() if fields["host"] == master}
    tables["PBD"] = {ref: fields for ref, fields in tables["PBD"].items() if fields["host"] == master}


def _fit_interfaces(pool: PoolCore, tables: Tables) -> None:
    """Give the backup's interfaces this machine's addresses, found by the devices' names."""
    ours = [row.fields for row in pool.db.rows("PIF") if row.fields["host"] == pool.master_ref]
    physical = {str(fields["device"]): fields for fields in ours if fields["physical"]}
    managing = [str(fields["device"]) for fields in ours if fields["management"]]
    wanted = managing[0] if len(managing) == 1 else None
    found: list[str] = []
    for fields in tables["PIF"].values():
        device = str(fields["device"])
        found.insert(0, device)
        fields["management"] = device == wanted
        if fields["physical"]:
            if device not in physical:
                raise ApiFailure("RESTORE_TARGET_MISSING_DEVICE", device)
            fields["MAC"] = physical[device]["MAC"]
            fields.update({name: physical[device][name] for name in _OF_THE_NETWORK})
    if wanted is not None and wanted not in found:
        raise ApiFailure("RESTORE_TARGET_MGMT_IF_NOT_IN_BACKUP", *found)


def apply_restore(pool: PoolCore, plan: RestorePlan) -> None:
    """Reboot with the restored database: what ran has ended, and nobody is logged in."""
    tables = plan.tables
    for row in pool.db.rows("VM"):
        if row.fields["power_state"] in ("Running", "Paused") and not row.fields["is_control_domain"]:
            halt_vm(Context(pool), row.ref)
    with pool.db.transaction():
        restart_toolstack(pool)
        here = pool.db.row("host", pool.master_ref).fields
        tables["host"][pool.master_ref].update({name: here[name] for name in _OF_THE_HOST})
        _show_storage(pool, tables)
        _end_machines(tables)
        pool.db.replace(tables)


def _show_storage(pool: PoolCore, tables: Tables) -> None:
    """Keep the records of disks that are there, and add those of disks that the backup does not know."""
    there = {str(row.fields["uuid"]): row for row in pool.db.rows("VDI")}
    kept: dict[str, Fields] = {}
    known: set[str] = set()
    for ref, fields in tables["VDI"].items():
        row = there.get(str(fields["uuid"]))
        if row is not None and fields["SR"] in tables["SR"]:
            kept[ref] = {**fields, **{name: row.fields[name] for name in _OF_THE_STORAGE}}
            known.add(str(fields["uuid"]))
    for uuid, row in there.items():
        if uuid not in known and row.fields["SR"] in tables["SR"]:
            kept[row.ref] = dict(row.fields)
    tables["VDI"] = kept
    tables["VBD"] = {ref: fields for ref, fields in tables["VBD"].items() if fields["empty"] or fields["VDI"] in kept}


def _end_machines(tables: Tables) -> None:
    ended = {
        ref
        for ref, fields in tables["VM"].items()
        if fields["power_state"] in ("Running", "Paused") and not fields["is_control_domain"]
    }
    for ref in ended:
        tables["VM"][ref].update(_ENDED)
    for cls in ("VBD", "VIF"):
        for fields in tables[cls].values():
            if fields["VM"] in ended:
                fields["currently_attached"] = False
    for rows in tables.values():
        for fields in rows.values():
            if "current_operations" in fields:
                fields["current_operations"] = {}
