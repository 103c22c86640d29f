"""XAPI's records, read field by field with a type, and turned into the shared nouns.

Invariant: a record that lacks a field or has it in another form is ``PoolAnswerInvalid`` naming the field, here and
nowhere else. XML-RPC sends integers as strings of digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from holdfast.core import ExitStatus, HoldfastError
from holdfast.model import (
    Disk,
    DiskUuid,
    Host,
    HostUuid,
    JsonObject,
    JsonValue,
    Network,
    NetworkUuid,
    Nic,
    Pool,
    PoolUuid,
    PowerState,
    Sr,
    SrUuid,
    Vm,
    VmDisk,
    VmUuid,
)

__all__ = [
    "NULL_REF",
    "RecordInvalid",
    "as_object",
    "as_text",
    "disk_from",
    "flag",
    "host_from",
    "integer",
    "moment",
    "network_from",
    "nic_from",
    "pool_from",
    "position_key",
    "refs",
    "sr_from",
    "strings",
    "text",
    "vm_disk_from",
    "vm_from",
]

NULL_REF = "OpaqueRef:NULL"

Table = Mapping[str, JsonObject]
"""Records of one class by their reference."""

_CBT_OPERATIONS = frozenset({"vdi_enable_cbt", "vdi_list_changed_blocks", "vdi_data_destroy"})


class RecordInvalid(HoldfastError):
    """The pool sent a record in a form that we do not know."""

    code = "pool.record-invalid"
    exit_status = ExitStatus.UNREACHABLE
    advice = "Report the pool's version together with the field named here."

    def __init__(self, *, field: str, value: str) -> None:
        super().__init__(f"the pool sent {field} as {value}")
        self.field, self.value = field, value


def _wrong(field: str, value: object) -> RecordInvalid:
    return RecordInvalid(field=field, value=repr(value)[:80])


def as_object(value: JsonValue, *, what: str) -> JsonObject:
    """Return a map that an answer consists of."""
    if not isinstance(value, dict):
        raise _wrong(what, value)
    return value


def as_text(value: JsonValue, *, what: str) -> str:
    """Return a text that an answer consists of."""
    if not isinstance(value, str):
        raise _wrong(what, value)
    return value


def text(record: JsonObject, field: str, default: str | None = None) -> str:
    """Return a text field; ``default`` where an older pool has no such field."""
    value = record.get(field, default)
    if not isinstance(value, str):
        raise _wrong(field, value)
    return value


def integer(record: JsonObject, field: str, default: int | None = None) -> int:
    """Return an integer field, sent as a number or as digits."""
    value = record.get(field, default)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as cause:
            raise _wrong(field, value) from cause
    raise _wrong(field, value)


def flag(record: JsonObject, field: str, default: bool | None = None) -> bool:
    """Return a boolean field."""
    value = record.get(field, default)
    if not isinstance(value, bool):
        raise _wrong(field, value)
    return value


def strings(record: JsonObject, field: str) -> dict[str, str]:
    """Return a map of texts; an absent field is an empty map."""
    value = record.get(field, {})
    if not isinstance(value, dict):
        raise _wrong(field, value)
    return {key: each if isinstance(each, str) else str(each) for key, each in value.items()}


def refs(record: JsonObject, field: str) -> list[str]:
    """Return a set of texts; an absent field is an empty set."""
    value = record.get(field, [])
    if not isinstance(value, list):
        raise _wrong(field, value)
    return [str(each) for each in value]


def moment(record: JsonObject, field: str) -> datetime:
    """Return a time field in UTC: ``20261120T08:57:36Z``, with dashes and fractions on some versions."""
    value = text(record, field).replace("-", "").split(".")[0].rstrip("Z")
    try:
        return datetime.strptime(value, "%Y%m%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError as cause:
        raise _wrong(field, value) from cause


def position_key(position: str) -> tuple[int, str]:
    """Order positions as people do: 2 before 10."""
    return (int(position) if position.isdigit() else 1 << 30, position)


def pool_from(record: JsonObject, *, hosts: Table, srs: Table) -> Pool:
    """Return the pool. A pool without a label is named after its master, as everybody does."""
    master = hosts[text(record, "master")]
    default_sr = srs.get(text(record, "default_SR", NULL_REF))
    return Pool(
        uuid=PoolUuid(text(record, "uuid")),
        name=text(record, "name_label") or text(master, "name_label"),
        master=HostUuid(text(master, "uuid")),
        default_sr=SrUuid(text(default_sr, "uuid")) if default_sr is not None else None,
    )


def host_from(record: JsonObject) -> Host:
    """Return a host."""
    versions = strings(record, "software_version")
    return Host(
        uuid=HostUuid(text(record, "uuid")),
        name=text(record, "name_label"),
        address=text(record, "address", ""),
        version=versions.get("product_version", versions.get("xapi", "")),
    )


def sr_from(record: JsonObject) -> Sr:
    """Return an SR."""
    size_bytes = integer(record, "physical_size", 0)
    # CBT operations are never listed on the disk itself (a concession to old clients), only on its SR.
    return Sr(
        uuid=SrUuid(text(record, "uuid")),
        name=text(record, "name_label"),
        kind=text(record, "type"),
        content_type=text(record, "content_type", ""),
        shared=flag(record, "shared", False),
        physical_size_bytes=size_bytes,
        free_bytes=max(0, size_bytes - integer(record, "physical_utilisation", 0)),
        supports_cbt=_CBT_OPERATIONS.issubset(refs(record, "allowed_operations")),
    )


def network_from(record: JsonObject) -> Network:
    """Return a network."""
    return Network(
        uuid=NetworkUuid(text(record, "uuid")),
        name=text(record, "name_label"),
        bridge=text(record, "bridge", ""),
        nbd="nbd" in refs(record, "purpose"),
    )


def disk_from(record: JsonObject, *, sr: SrUuid, snapshot_of: DiskUuid | None) -> Disk:
    """Return a disk; its references have been looked up by the caller."""
    return Disk(
        uuid=DiskUuid(text(record, "uuid")),
        name=text(record, "name_label"),
        sr=sr,
        size_bytes=integer(record, "virtual_size"),
        used_bytes=max(0, integer(record, "physical_utilisation", 0)),
        kind=text(record, "type"),
        cbt_enabled=flag(record, "cbt_enabled", False),
        is_snapshot=flag(record, "is_a_snapshot", False),
        snapshot_of=snapshot_of,
        record=record,
    )


def vm_disk_from(vbd: JsonObject, disk: Disk) -> VmDisk:
    """Return a disk at its place."""
    return VmDisk(
        position=text(vbd, "userdevice"),
        bootable=flag(vbd, "bootable", False),
        read_only=text(vbd, "mode", "RW") == "RO",
        disk=disk,
        vbd_record=vbd,
    )


def nic_from(record: JsonObject, *, network: Network | None) -> Nic:
    """Return a network card."""
    return Nic(position=text(record, "device"), mac=text(record, "MAC"), network=network, record=record)


def vm_from(record: JsonObject, *, disks: list[VmDisk], nics: list[Nic]) -> Vm:
    """Return a VM with its disks and network cards in the order of their positions."""
    state = text(record, "power_state")
    if state not in (each.value for each in PowerState):
        raise _wrong("power_state", state)
    return Vm(
        uuid=VmUuid(text(record, "uuid")),
        name=text(record, "name_label"),
        description=text(record, "name_description", ""),
        power_state=PowerState(state),
        tags=tuple(sorted(refs(record, "tags"))),
        memory_bytes=integer(record, "memory_static_max", 0),
        vcpus=integer(record, "VCPUs_max", 0),
        disks=tuple(sorted(disks, key=lambda each: position_key(each.position))),
        nics=tuple(sorted(nics, key=lambda each: position_key(each.position))),
        record=record,
    )
