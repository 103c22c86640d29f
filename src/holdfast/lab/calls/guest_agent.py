"""The tools inside a guest, as the pool sees them: they report some seconds after a start, if the guest boots at all.

A VM has guest metrics from the moment it runs; they say nothing until the tools report. Clients hold on to that one
record and wait for its drivers. Invariant: only a guest whose VM runs since that start reports, and what it reports is
what its disks say.
"""

from __future__ import annotations

from holdfast.core import get_log
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.guests import BootState, read_boot_state
from holdfast.lab.images import GuestSystem

__all__ = ["NO_TOOLS_KEY", "await_guest", "await_guests", "boot_state", "forget_guest", "report_guest", "settle_guests"]

log = get_log(__name__)

NO_TOOLS_KEY = "lab:no-tools"
"""A VM whose ``other_config`` has this key gets no reports, as if its guest had no tools."""

_TOOLS_VERSION = {"major": "8", "minor": "4", "micro": "0", "build": "1"}
_FEATURES = (
    "feature-balloon",
    "feature-poweroff",
    "feature-reboot",
    "feature-shutdown",
    "feature-suspend",
    "feature-vcpu-hotplug",
    "platform-feature-multiprocessor-suspend",
)


def boot_state(context: Context, vm: str) -> BootState:
    """Return whether the VM's guest boots, judged by the bytes on its disks."""
    db = context.db
    rows = [db.row("VBD", vbd).fields for vbd in db.texts("VM", vm, "VBDs")]
    rows = [row for row in rows if row["type"] == "Disk" and db.exists("VDI", str(row["VDI"]))]
    rows.sort(key=lambda row: (len(str(row["userdevice"])), str(row["userdevice"])))
    return read_boot_state(context.pool.disks, [db.text("VDI", str(row["VDI"]), "uuid") for row in rows])


def meet_guest(context: Context, vm: str) -> str:
    """Return the guest metrics of a VM that runs, made now if there were none."""
    db = context.db
    known = db.text("VM", vm, "guest_metrics")
    if not db.exists("VM_guest_metrics", known):
        with db.transaction():
            known = db.create("VM_guest_metrics", {"last_updated": context.pool.now(), "live": True})
            db.set("VM", vm, "guest_metrics", known)
    return known


def await_guest(context: Context, vm: str) -> None:
    """Let the guest's tools report a little later, on the lab's clock, unless they have."""
    pool = context.pool
    if pool.db.flag("VM_guest_metrics", meet_guest(context, vm), "PV_drivers_detected"):
        return
    domid = pool.db.number("VM", vm, "domid")

    def report() -> None:
        row = pool.db.find("VM", vm)
        if row is not None and row.fields["power_state"] == "Running" and row.fields["domid"] == domid:
            report_guest(context, vm)

    pool.chores.after(_chore(vm), pool.delays.tools_s, report)


def await_guests(pool: PoolCore) -> None:
    """Let every running guest report that has not yet, after the lab was stopped meanwhile."""
    for vm in _silent_guests(pool):
        await_guest(Context(pool), vm)


def settle_guests(pool: PoolCore) -> None:
    """Let every running guest report now that has not yet: a new world has been there for a while."""
    for vm in _silent_guests(pool):
        pool.chores.cancel(_chore(vm))
        report_guest(Context(pool), vm)


def _silent_guests(pool: PoolCore) -> list[str]:
    rows = [row for row in pool.db.rows("VM") if row.fields["power_state"] == "Running"]
    rows = [row for row in rows if not row.fields["is_control_domain"]]
    return [row.ref for row in rows if not _has_reported(pool, str(row.fields["guest_metrics"]))]


def _has_reported(pool: PoolCore, metrics: str) -> bool:
    row = pool.db.find("VM_guest_metrics", metrics)
    return row is not None and bool(row.fields["PV_drivers_detected"])


def _chore(vm: str) -> str:
    return f"guest-tools/{vm}"


def report_guest(context: Context, vm: str) -> None:
    """Let the guest's tools report now. Nothing is reported by a guest that does not boot or has no tools."""
    db = context.db
    metrics = meet_guest(context, vm)
    state = boot_state(context, vm)
    if state.system is None:
        log.info("lab.guest-does-not-boot", vm=db.text("VM", vm, "uuid"), reason=state.reason)
        return
    if not state.system.has_tools or NO_TOOLS_KEY in db.mapping("VM", vm, "other_config"):
        return
    db.update("VM_guest_metrics", metrics, _report(context, vm, state.system))


def _report(context: Context, vm: str, system: GuestSystem) -> Fields:
    os_version = {
        "name": system.name,
        "distro": system.distro,
        "major": system.major,
        "minor": system.minor,
        "uname": system.kernel,
    }
    has_vendor_device = "1" if context.db.flag("VM", vm, "has_vendor_device") else "0"
    return {
        "os_version": {key: value for key, value in os_version.items() if value},
        "PV_drivers_version": _TOOLS_VERSION,
        "PV_drivers_up_to_date": True,
        "PV_drivers_detected": True,
        "networks": _networks(context, vm),
        "other": {**dict.fromkeys(_FEATURES, "1"), "has-vendor-device": has_vendor_device},
        "last_updated": context.pool.now(),
        "live": True,
    }


def _networks(context: Context, vm: str) -> dict[str, str]:
    """Return the addresses that the guest's cards have: derived from their hardware addresses."""
    found: dict[str, str] = {}
    for vif in context.db.texts("VM", vm, "VIFs"):
        fields = context.db.row("VIF", vif).fields
        if not fields["currently_attached"]:
            continue
        octets = bytes.fromhex(str(fields["MAC"]).replace(":", ""))
        device = fields["device"]
        ipv4 = f"10.{octets[3]}.{octets[4]}.{octets[5] or 1}"
        interface = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]]).hex(":", 2)
        found |= {f"{device}/ip": ipv4, f"{device}/ipv4/0": ipv4, f"{device}/ipv6/0": f"fe80::{interface}"}
    return found


def forget_guest(context: Context, vm: str) -> None:
    """Remove what the guest reported, and let it report no more."""
    db = context.db
    context.pool.chores.cancel(_chore(vm))
    with db.transaction():
        known = db.text("VM", vm, "guest_metrics")
        if known != NULL_REF:
            db.set("VM", vm, "guest_metrics", NULL_REF)
        if db.exists("VM_guest_metrics", known):
            db.destroy("VM_guest_metrics", known)
