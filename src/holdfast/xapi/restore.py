"""Making things on the pool: disks, VMs, their disks' places and their network cards.

Invariant: whoever calls here has written a ledger line first; nothing here cleans up what another step made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.model import DiskUuid, JsonObject, JsonValue, NetworkUuid, SrUuid, VmUuid
from holdfast.xapi.calls import Calls
from holdfast.xapi.catalogue import ObjectGone, PowerStateWrong
from holdfast.xapi.image_format import image_config
from holdfast.xapi.records import NULL_REF, as_text, integer, refs, text
from holdfast.xapi.retry import REMOVAL_RULES
from holdfast.xapi.snapshots import destroy_disk
from holdfast.xapi.tasks import call_async
from holdfast.xapi.vm_record import new_vm_record

__all__ = [
    "create_disk",
    "create_drive",
    "create_vbd",
    "create_vif",
    "create_vm",
    "destroy_vm",
    "set_bios_strings",
    "set_blocked_operations",
    "shutdown_vm",
    "sr_free_bytes",
    "start_vm",
]


def sr_free_bytes(calls: Calls, sr: SrUuid) -> int:
    """Return what the SR has left, by its own account after a fresh look."""
    ref = calls.ref("SR", sr)
    call_async(calls, "SR.scan", ref)
    record = calls.record("SR", ref)
    return max(0, integer(record, "physical_size") - integer(record, "physical_utilisation"))


def create_disk(
    calls: Calls,
    sr: SrUuid,
    *,
    size_bytes: int,
    name: str,
    description: str,
    other_config: Mapping[str, str],
    tags: Sequence[str],
) -> DiskUuid:
    """Create an empty disk, as qcow2 where it is too large for VHD; the SR may round its size up."""
    sr_ref = calls.ref("SR", sr)
    record: JsonObject = {
        "name_label": name,
        "name_description": description,
        "SR": sr_ref,
        "virtual_size": str(size_bytes),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": dict(other_config),
        "xenstore_data": {},
        "sm_config": {**image_config(calls, calls.record("SR", sr_ref), size_bytes=size_bytes)},
        "tags": list(tags),
    }
    return DiskUuid(calls.uuid("VDI", as_text(call_async(calls, "VDI.create", record), what="VDI.create")))


def create_vm(calls: Calls, record: JsonObject) -> VmUuid:
    """Create a halted VM from a saved record; what refers to other objects of the old pool is left out."""
    ref = as_text(call_async(calls, "VM.create", new_vm_record(record)), what="VM.create")
    return VmUuid(calls.uuid("VM", ref))


def set_bios_strings(calls: Calls, vm: VmUuid, bios_strings: Mapping[str, str]) -> None:
    """Give a VM its BIOS strings, as far as they can be chosen; a VM that was never started has none yet.

    What is left out the pool fills in as it does for every VM: empty ones, and those that belong to it.
    """
    chosen = {key: text for key, text in bios_strings.items() if key in _BIOS_STRINGS_CHOSEN and _is_accepted(text)}
    if chosen:
        calls.call("VM.set_bios_strings", calls.ref("VM", vm), chosen)


_BIOS_STRINGS_CHOSEN = frozenset(
    "bios-vendor bios-version system-manufacturer system-product-name system-version system-serial-number "
    "baseboard-manufacturer baseboard-product-name baseboard-version baseboard-serial-number baseboard-asset-tag "
    "baseboard-location-in-chassis enclosure-asset-tag".split()
)
"""What ``VM.set_bios_strings`` takes; one name or one empty text beyond it and the pool refuses them all."""

_BIOS_STRING_CHARACTERS_MAX = 512
"""The pool's own limit."""


def _is_accepted(text: str) -> bool:
    return 0 < len(text) <= _BIOS_STRING_CHARACTERS_MAX and text.isascii() and text.isprintable()


def set_blocked_operations(calls: Calls, vm: VmUuid, reasons: Mapping[str, str]) -> None:
    """Forbid operations on a VM, each with its reason; ``VM.create`` ignores them."""
    calls.call("VM.set_blocked_operations", calls.ref("VM", vm), dict(reasons))


def create_vbd(
    calls: Calls,
    vm: VmUuid,
    disk: DiskUuid,
    *,
    position: str,
    bootable: bool,
    read_only: bool,
    record: JsonObject,
) -> None:
    """Attach a disk to a VM at its position."""
    vbd: JsonObject = {
        "VM": calls.ref("VM", vm),
        "VDI": calls.ref("VDI", disk),
        "userdevice": position,
        "bootable": bootable,
        "mode": "RO" if read_only else "RW",
        "type": "Disk",
        "unpluggable": _kept(record, "unpluggable", True),
        "empty": False,
        "other_config": _kept(record, "other_config", {}),
        "qos_algorithm_type": _kept(record, "qos_algorithm_type", ""),
        "qos_algorithm_params": _kept(record, "qos_algorithm_params", {}),
    }
    call_async(calls, "VBD.create", vbd)


def create_drive(calls: Calls, vm: VmUuid, *, position: str, record: JsonObject) -> None:
    """Give a VM an empty CD drive at a position."""
    vbd: JsonObject = {
        "VM": calls.ref("VM", vm),
        "VDI": NULL_REF,
        "userdevice": position,
        "bootable": _kept(record, "bootable", False),
        "mode": "RO",
        "type": "CD",
        "unpluggable": _kept(record, "unpluggable", False),
        "empty": True,
        "other_config": _kept(record, "other_config", {}),
        "qos_algorithm_type": _kept(record, "qos_algorithm_type", ""),
        "qos_algorithm_params": _kept(record, "qos_algorithm_params", {}),
    }
    call_async(calls, "VBD.create", vbd)


def create_vif(calls: Calls, vm: VmUuid, network: NetworkUuid, *, position: str, mac: str, record: JsonObject) -> None:
    """Give a VM a network card; with an empty ``mac`` the pool derives one."""
    vif: JsonObject = {
        "VM": calls.ref("VM", vm),
        "network": calls.ref("network", network),
        "device": position,
        "MAC": mac,
        "MTU": _kept(record, "MTU", "1500"),
        "other_config": _kept(record, "other_config", {}),
        "qos_algorithm_type": _kept(record, "qos_algorithm_type", ""),
        "qos_algorithm_params": _kept(record, "qos_algorithm_params", {}),
        "locking_mode": _kept(record, "locking_mode", "network_default"),
        "ipv4_allowed": _kept(record, "ipv4_allowed", []),
        "ipv6_allowed": _kept(record, "ipv6_allowed", []),
    }
    call_async(calls, "VIF.create", vif)


def _kept(record: JsonObject, field: str, default: JsonValue) -> JsonValue:
    return record.get(field, default)


def start_vm(calls: Calls, vm: VmUuid) -> None:
    """Start a halted VM and return when it runs."""
    call_async(calls, "VM.start", calls.ref("VM", vm), False, False)


def shutdown_vm(calls: Calls, vm: VmUuid) -> None:
    """Switch a VM off as its power button held down would; one that is off already is fine."""
    ref = calls.ref("VM", vm)
    if text(calls.record("VM", ref), "power_state") == "Halted":
        return
    try:
        call_async(calls, "VM.hard_shutdown", ref)
    except PowerStateWrong:
        if text(calls.record("VM", ref), "power_state") != "Halted":
            raise


def destroy_vm(calls: Calls, vm: VmUuid, *, with_disks: bool) -> None:
    """Remove a halted VM, then its disks when asked; gone already is fine."""
    ref = calls.try_ref("VM", vm)
    record = calls.try_record("VM", ref) if ref is not None else None
    if ref is None or record is None:
        return
    disks = _writable_disks(calls, record) if with_disks else []

    def attempt() -> None:
        try:
            call_async(calls, "VM.destroy", ref, rules=())
        except ObjectGone as gone:
            if ref not in gone.xapi_text:
                raise

    calls.patiently(attempt, rules=REMOVAL_RULES)
    for disk in disks:
        destroy_disk(calls, disk)


def _writable_disks(calls: Calls, vm: JsonObject) -> list[DiskUuid]:
    """Return the disks that belong to the VM: no CD, nothing that another VM is attached to as well."""
    found: list[DiskUuid] = []
    for vbd_ref in refs(vm, "VBDs"):
        vbd = calls.try_record("VBD", vbd_ref)
        disk = calls.try_record("VDI", text(vbd, "VDI", NULL_REF)) if vbd and text(vbd, "type") == "Disk" else None
        if disk is not None and refs(disk, "VBDs") == [vbd_ref]:
            found.append(DiskUuid(text(disk, "uuid")))
    return found
