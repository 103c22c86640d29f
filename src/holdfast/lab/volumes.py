"""Disks as records and bytes at once: every change to a disk of the pool goes through here.

A repository of VHD disks shows its hidden base copies and who stands on whom (``sm_config:vhd-parent``), and rounds
sizes to whole blocks; one of plain images shows neither. Invariant: a managed VDI record without ``cbt_metadata`` has
its bytes in the disk store, under the record's uuid.
"""

from __future__ import annotations

from typing import cast

from holdfast.core import MIB, limits
from holdfast.lab.context import PoolCore
from holdfast.lab.database import Fields, new_disk_uuid
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.disks import VHD_BLOCK_BYTES, DiskSizeInvalid, SnapshotMade
from holdfast.lab.driver_faults import lose_tracking, meet_disk_fault, meet_sr_fault
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import CBT_METADATA, has_vhd_disks

__all__ = [
    "check_sr_attached",
    "clone_vdi",
    "create_vdi",
    "data_destroy_vdi",
    "destroy_vdi",
    "disk_uuid",
    "mark_written",
    "refresh_sr",
    "resize_vdi",
    "snapshot_vdi",
]

_INHERITED = ("name_label", "name_description", "type", "sharable", "tags", "xenstore_data", "on_boot", "other_config")


def disk_uuid(pool: PoolCore, vdi: str) -> str:
    """Return the name of the disk's bytes in the store."""
    return pool.db.text("VDI", vdi, "uuid")


def check_sr_attached(pool: PoolCore, sr: str) -> None:
    """Return when a host has the repository; ``SR_HAS_NO_PBDS`` otherwise."""
    db = pool.db
    pbds = db.texts("SR", sr, "PBDs")
    if not any(db.flag("PBD", pbd, "currently_attached") for pbd in pbds):
        raise ApiFailure("SR_HAS_NO_PBDS", sr)


def create_vdi(pool: PoolCore, record: Fields) -> str:
    """Make an empty disk from a constructor's record and return its reference."""
    db = pool.db
    sr = str(record["SR"])
    db.row("SR", sr)
    if record["type"] == CBT_METADATA:
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", "", "CBT metadata")
    check_sr_attached(pool, sr)
    meet_sr_fault(pool, sr, "create")
    is_vhd = has_vhd_disks(db, sr)
    size_bytes = _provisioned_size(int(cast(int, record["virtual_size"])), is_vhd=is_vhd)
    uuid = new_disk_uuid(pool.entropy)
    try:
        pool.disks.create(uuid, size_bytes)
    except DiskSizeInvalid as cause:
        raise ApiFailure("SR_BACKEND_FAILURE_79", "", f"VDI Invalid size [opterr={cause}]", "") from cause
    kept = ("name_label", "type", "sharable", "read_only", "other_config", "xenstore_data", "tags")
    fields: Fields = {name: record[name] for name in kept}
    if is_vhd:  # a driver of plain images forgets these two, as recorded from a real pool
        fields |= {"name_description": record["name_description"], "sm_config": record["sm_config"]}
    return _add_record(pool, uuid, {**fields, "SR": sr, "virtual_size": size_bytes})


def _provisioned_size(size_bytes: int, *, is_vhd: bool) -> int:
    if not is_vhd:
        return size_bytes
    if not MIB <= size_bytes <= limits.VHD_DISK_BYTES_MAX:
        text = "VDI Invalid size [opterr=VDI size must be between 1 MB and 2088960 MB]"
        raise ApiFailure("SR_BACKEND_FAILURE_79", "", text, "")
    return -(-size_bytes // VHD_BLOCK_BYTES) * VHD_BLOCK_BYTES


def _add_record(pool: PoolCore, uuid: str, fields: Fields) -> str:
    defaults: Fields = {
        "uuid": uuid,
        "location": uuid,
        "managed": True,
        "parent": NULL_REF,
        "physical_utilisation": pool.disks.used_bytes(uuid) + 4096,
    }
    return pool.db.create("VDI", {**defaults, **fields})


def snapshot_vdi(pool: PoolCore, vdi: str, *, taken_at: str | None = None) -> str:
    """Freeze the disk and return the snapshot's reference; it takes the change log over."""
    db = pool.db
    if pool.delays.snapshot_s:
        pool.clock.sleep(pool.delays.snapshot_s)
    meet_disk_fault(pool, vdi, "snapshot")
    lose_tracking(pool, vdi)
    uuid = new_disk_uuid(pool.entropy)
    with db.transaction():
        made = pool.disks.snapshot(disk_uuid(pool, vdi), uuid)
        fields = _inherited(pool, vdi) | {
            "is_a_snapshot": True,
            "snapshot_of": vdi,
            "snapshot_time": taken_at or pool.now(),
            "cbt_enabled": db.flag("VDI", vdi, "cbt_enabled"),
        }
        snapshot = _add_record(pool, uuid, fields)
        _show_tree(pool, made, vdi, snapshot)
        return snapshot


def clone_vdi(pool: PoolCore, vdi: str) -> str:
    """Make a second, independent disk of the same content and return its reference."""
    meet_disk_fault(pool, vdi, "clone")
    uuid = new_disk_uuid(pool.entropy)
    with pool.db.transaction():
        made = pool.disks.clone(disk_uuid(pool, vdi), uuid)
        clone = _add_record(pool, uuid, _inherited(pool, vdi))
        _show_tree(pool, made, vdi, clone)
        return clone


def _inherited(pool: PoolCore, vdi: str) -> Fields:
    row = pool.db.row("VDI", vdi)
    fields: Fields = {name: row.fields[name] for name in _INHERITED}
    return fields | {"SR": row.fields["SR"], "virtual_size": row.fields["virtual_size"]}


def _show_tree(pool: PoolCore, made: SnapshotMade, *standing: str) -> None:
    """Make the hidden base copy visible as a repository of VHD disks does, and say who stands on it."""
    db = pool.db
    sr = db.text("VDI", standing[0], "SR")
    if not has_vhd_disks(db, sr):
        return
    base = str(made.base_uuid)
    if not db.has_uuid("VDI", base):
        parent = pool.disks.parent(base)
        fields: Fields = {
            "name_label": "base copy",
            "SR": sr,
            "virtual_size": pool.disks.size_bytes(base),
            "type": db.text("VDI", standing[0], "type"),
            "managed": False,
            "read_only": True,
            "other_config": {},
            "sm_config": {"vhd-parent": str(parent)} if parent else {},
            "snapshot_time": EPOCH,
        }
        _add_record(pool, base, fields)
    for vdi in standing:
        db.put_key("VDI", vdi, "sm_config", key="vhd-parent", value=base)


def destroy_vdi(pool: PoolCore, vdi: str) -> None:
    """Remove the disk with its VBDs; base copies that nobody stands on any more vanish with it."""
    db = pool.db
    meet_disk_fault(pool, vdi, "destroy")
    with db.transaction():
        for vbd in db.texts("VDI", vdi, "VBDs"):
            db.destroy("VBD", vbd)
        for row in db.rows("VM"):
            if row.fields["suspend_VDI"] == vdi:
                db.set("VM", row.ref, "suspend_VDI", NULL_REF)
        sr = db.text("VDI", vdi, "SR")
        uuid = disk_uuid(pool, vdi)
        if pool.disks.exists(uuid):
            pool.disks.destroy(uuid)
        db.destroy("VDI", vdi)
        _forget_bases(pool, sr)


def data_destroy_vdi(pool: PoolCore, vdi: str) -> None:
    """Free a snapshot's data; the record and its change log stay."""
    db = pool.db
    with db.transaction():
        pool.disks.data_destroy(disk_uuid(pool, vdi))
        config = {**db.mapping("VDI", vdi, "other_config"), "content_id": "/No content: this is a cbt_metadata VDI/"}
        sm_config = {k: v for k, v in db.mapping("VDI", vdi, "sm_config").items() if k != "vhd-parent"}
        db.update("VDI", vdi, {"other_config": config, "sm_config": sm_config, "physical_utilisation": 4096})
        _forget_bases(pool, db.text("VDI", vdi, "SR"))


def _forget_bases(pool: PoolCore, sr: str) -> None:
    db = pool.db
    for ref in db.texts("SR", sr, "VDIs"):
        row = db.row("VDI", ref)
        if not row.fields["managed"] and not pool.disks.exists(str(row.fields["uuid"])):
            db.destroy("VDI", ref)


def resize_vdi(pool: PoolCore, vdi: str, size_bytes: int) -> None:
    """Grow the disk."""
    db = pool.db
    meet_disk_fault(pool, vdi, "resize")
    is_vhd = has_vhd_disks(db, db.text("VDI", vdi, "SR"))
    size_bytes = _provisioned_size(size_bytes, is_vhd=is_vhd)
    try:
        pool.disks.resize(disk_uuid(pool, vdi), size_bytes)
    except DiskSizeInvalid as cause:
        raise ApiFailure("SR_BACKEND_FAILURE_110", "", f"VDI resize failed [opterr={cause}]", "") from cause
    db.set("VDI", vdi, "virtual_size", size_bytes)


def mark_written(pool: PoolCore, vdi: str) -> None:
    """Note that the disk's content is another one now."""
    with pool.db.transaction():
        pool.db.put_key("VDI", vdi, "other_config", key="content_id", value=pool.new_uuid())
        used_bytes = pool.disks.used_bytes(disk_uuid(pool, vdi)) + 4096
        pool.db.set("VDI", vdi, "physical_utilisation", used_bytes)


def refresh_sr(pool: PoolCore, sr: str) -> None:
    """Count the repository's space anew."""
    db = pool.db
    with db.transaction():
        virtual = physical = 0
        for ref in db.texts("SR", sr, "VDIs"):
            uuid = disk_uuid(pool, ref)
            used_bytes = pool.disks.used_bytes(uuid) + 4096 if pool.disks.exists(uuid) else 4096
            if db.number("VDI", ref, "physical_utilisation") != used_bytes:
                db.set("VDI", ref, "physical_utilisation", used_bytes)
            physical += used_bytes
            virtual += db.number("VDI", ref, "virtual_size")
        db.update("SR", sr, {"virtual_allocation": virtual, "physical_utilisation": physical})
