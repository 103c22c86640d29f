"""What changes on record when a VM gets a domain or loses it: attachments, host, metrics, consoles.

Invariant: a VM with a domain has its devices attached and a host; one that is halted has neither.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.calls.guest_agent import await_guest
from holdfast.lab.calls.vbd import attach_now, detach_now
from holdfast.lab.context import Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.volumes import begin_epoch

__all__ = ["begin_boot", "bring_up", "let_run", "new_metrics", "take_down"]

_CONSOLES = ("vt100", "rfb")


def new_metrics(context: Context, fields: Fields | None = None) -> str:
    """Add the metrics of a VM that does not run."""
    return context.db.create("VM_metrics", {"last_updated": EPOCH, "start_time": EPOCH, **(fields or {})})


def begin_boot(context: Context, vm: str) -> None:
    """Note that the VM boots, rather than goes on: disks that are reset on boot are as they were before."""
    db = context.db
    for vbd in db.texts("VM", vm, "VBDs"):
        vdi = db.text("VBD", vbd, "VDI")
        if db.exists("VDI", vdi):
            begin_epoch(context.pool, vdi)


def bring_up(context: Context, vm: str, *, host: str, is_paused: bool) -> None:
    """Attach disks and cards and give the VM a domain on the host."""
    db = context.db
    with db.transaction():
        for vbd in db.texts("VM", vm, "VBDs"):
            attach_now(context, vbd)
        for vif in db.texts("VM", vm, "VIFs"):
            db.set("VIF", vif, "currently_attached", True)
        domid = 1 + max((cast(int, row.fields["domid"]) for row in db.rows("VM")), default=0)
        fields: Fields = {"power_state": "Paused", "resident_on": host, "domid": domid}
        fields["last_booted_record"] = f"(booted {db.text('VM', vm, 'uuid')})"
        fields["last_boot_CPU_flags"] = _cpu_flags(context, vm, host)
        db.update("VM", vm, fields)
        _measure(context, vm)
        _open_consoles(context, vm, host)
        if not is_paused:
            let_run(context, vm)


def _cpu_flags(context: Context, vm: str, host: str) -> dict[str, str]:
    cpu = context.db.mapping("host", host, "cpu_info")
    features = "features_pv" if context.db.text("VM", vm, "domain_type") == "pv" else "features_hvm"
    return {"vendor": cpu.get("vendor", "GenuineIntel"), "features": cpu.get(features, "")}


def _measure(context: Context, vm: str) -> None:
    db = context.db
    fields = db.row("VM", vm).fields
    platform = cast("dict[str, str]", fields["platform"])
    measured: Fields = {
        "start_time": context.pool.now(),
        "last_updated": context.pool.now(),
        "memory_actual": fields["memory_dynamic_max"],
        "VCPUs_number": fields["VCPUs_at_startup"],
        "hvm": fields["domain_type"] == "hvm",
        "nested_virt": platform.get("nested-virt") in ("1", "true"),
        "nomigrate": platform.get("nomigrate") in ("1", "true"),
        "current_domain_type": fields["domain_type"],
    }
    metrics = str(fields["metrics"])
    if db.exists("VM_metrics", metrics):
        db.update("VM_metrics", metrics, measured)
    else:
        db.set("VM", vm, "metrics", new_metrics(context, measured))


def _open_consoles(context: Context, vm: str, host: str) -> None:
    db = context.db
    address = db.text("host", host, "address")
    for protocol in _CONSOLES if db.text("VM", vm, "domain_type") == "hvm" else _CONSOLES[:1]:
        uuid = context.pool.new_uuid()
        location = f"https://{address}/console?uuid={uuid}"
        db.create("console", {"uuid": uuid, "protocol": protocol, "location": location, "VM": vm})


def let_run(context: Context, vm: str) -> None:
    """Let the VM's processors go; its guest boots, or goes on where it was."""
    with context.db.transaction():
        context.db.set("VM", vm, "power_state", "Running")
        await_guest(context, vm)


def take_down(context: Context, vm: str, *, state: str = "Halted", suspend_vdi: str = NULL_REF) -> None:
    """Take the VM's domain away and let it be ``state``; a suspended one keeps its attachments on record."""
    db = context.db
    with db.transaction():
        if state == "Halted":
            for vbd in db.texts("VM", vm, "VBDs"):
                if db.flag("VBD", vbd, "currently_attached"):
                    detach_now(context, vbd)
            for vif in db.texts("VM", vm, "VIFs"):
                db.set("VIF", vif, "currently_attached", False)
        for console in db.texts("VM", vm, "consoles"):
            db.destroy("console", console)
        fields: Fields = {"power_state": state, "resident_on": NULL_REF, "domid": -1, "suspend_VDI": suspend_vdi}
        fields["scheduled_to_be_resident_on"] = NULL_REF
        if state == "Halted":
            fields["requires_reboot"] = False
        db.update("VM", vm, fields)
        metrics = db.text("VM", vm, "metrics")
        if state == "Halted" and db.exists("VM_metrics", metrics):
            db.set("VM_metrics", metrics, "current_domain_type", "unspecified")
