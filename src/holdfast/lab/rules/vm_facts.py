"""What decides what may be done with a VM, gathered from its record and from all that belongs to it.

Two VMs with equal facts allow the same, so a pool of many VMs is judged by its few kinds of them. Invariant: a rule of
VMs sees these facts and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from holdfast.lab.database import Database, Fields, Row
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.rules.guest import booted_paravirtual, cannot_suspend_reason, has_tools

__all__ = ["VmFacts", "gather_facts"]

_TRUE = ("1", "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFacts:
    """One VM as the rules see it."""

    power_state: str
    blocked: tuple[tuple[str, str], ...]
    running: tuple[tuple[str, str], ...]
    """Task and operation of what goes on."""
    is_a_template: bool
    is_default_template: bool
    is_a_snapshot: bool
    is_control_domain: bool
    is_domain_zero: bool
    is_system_domain: bool
    clones_suspended: bool
    is_live: bool
    is_nested: bool
    is_fixed: bool
    """Whether it must stay on its host."""
    booted_paravirtual: bool
    has_tools: bool
    features: frozenset[str]
    """What its guest says that it can do."""
    cannot_suspend: str | None
    has_reset_disks: bool
    has_cached_reset_disks: bool
    has_pcis: bool
    has_vgpus: bool
    has_vusbs: bool
    vtpms: int
    appliance: str | None
    snapshot_schedule: str | None


def gather_facts(db: Database, row: Row) -> VmFacts:
    """Return the facts of a VM."""
    fields = row.fields
    other_config = cast("dict[str, str]", fields["other_config"])
    guest = db.find("VM_guest_metrics", str(fields["guest_metrics"]))
    said = {} if guest is None else cast("dict[str, str]", guest.fields["other"])
    resets = [_is_cached(vdi) for vdi in _disks(db, fields) if _is_reset(vdi)]
    default = other_config.get("default_template", "").lower()
    return VmFacts(
        power_state=str(fields["power_state"]),
        blocked=tuple(cast("dict[str, str]", fields["blocked_operations"]).items()),
        running=tuple(cast("dict[str, str]", fields["current_operations"]).items()),
        is_a_template=bool(fields["is_a_template"]),
        is_default_template=bool(fields["is_default_template"]) or default in _TRUE,
        is_a_snapshot=bool(fields["is_a_snapshot"]),
        is_control_domain=bool(fields["is_control_domain"]),
        is_domain_zero=_is_domain_zero(db, row),
        is_system_domain=other_config.get("is_system_domain", "").lower() in _TRUE,
        clones_suspended=_clones_suspended(db),
        is_live=fields["power_state"] in ("Running", "Paused"),
        is_nested=_is_set(db, fields, "nested_virt", "nested-virt"),
        is_fixed=_is_set(db, fields, "nomigrate", "nomigrate"),
        booted_paravirtual=booted_paravirtual(db, fields),
        has_tools=has_tools(guest),
        features=frozenset(name for name, value in said.items() if value == "1"),
        cannot_suspend=cannot_suspend_reason(guest),
        has_reset_disks=bool(resets),
        has_cached_reset_disks=any(resets),
        has_pcis=bool(fields["attached_PCIs"]),
        has_vgpus=bool(fields["VGPUs"]),
        has_vusbs=bool(fields["VUSBs"]),
        vtpms=len(cast("list[str]", fields["VTPMs"])),
        appliance=_existing(db, "VM_appliance", str(fields["appliance"])),
        snapshot_schedule=_existing(db, "VMSS", str(fields["snapshot_schedule"])),
    )


def _is_domain_zero(db: Database, row: Row) -> bool:
    """Whether the VM is the one that its host runs under; an imported control domain is not."""
    host = db.find("host", str(row.fields["resident_on"]))
    return bool(row.fields["is_control_domain"]) and host is not None and host.fields["control_domain"] == row.ref


def _clones_suspended(db: Database) -> bool:
    pools = db.rows("pool")
    config = cast("dict[str, str]", pools[0].fields["other_config"]) if pools else {}
    return config.get("allow_clone_suspended_vm") == "true"


def _is_set(db: Database, fields: Fields, metric: str, key: str) -> bool:
    """Whether the running guest has the property; one that never ran is judged by what it would start with."""
    metrics = db.find("VM_metrics", str(fields["metrics"]))
    if metrics is not None:
        return bool(metrics.fields[metric])
    return cast("dict[str, str]", fields["platform"]).get(key, "").lower() in _TRUE


def _disks(db: Database, fields: Fields) -> list[Fields]:
    vbds = (db.find("VBD", vbd) for vbd in cast("list[str]", fields["VBDs"]))
    vdis = (db.find("VDI", str(vbd.fields["VDI"])) for vbd in vbds if vbd is not None)
    return [vdi.fields for vdi in vdis if vdi is not None]


def _is_reset(vdi: Fields) -> bool:
    return vdi["on_boot"] == "reset" or cast("dict[str, str]", vdi["sm_config"]).get("on_boot") == "reset"


def _is_cached(vdi: Fields) -> bool:
    return cast("dict[str, str]", vdi["sm_config"]).get("caching", "").lower() in _TRUE


def _existing(db: Database, cls: str, ref: str) -> str | None:
    return ref if ref != NULL_REF and db.exists(cls, ref) else None
