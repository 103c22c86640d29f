"""Disks as records and bytes at once: every change to a disk of the pool goes through here.

A repository of trees shows its hidden base copies and rounds sizes to whole blocks; one of plain images shows neither.
Invariant: a managed VDI record without ``cbt_metadata`` has its bytes in the disk store, under the record's uuid.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from holdfast.core import TIB, limits
from holdfast.lab.collector import collect_later
from holdfast.lab.context import PoolCore
from holdfast.lab.database import Fields, new_disk_uuid
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.disks import VHD_BLOCK_BYTES, DiskSizeInvalid, SnapshotMade
from holdfast.lab.driver_faults import lose_tracking, meet_disk_fault, meet_sr_fault
from holdfast.lab.drivers import QCOW2_DISK_BYTES_MAX, ImageKind, driver_of
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rules import CBT_METADATA, has_vhd_disks
from holdfast.lab.shelf import known_size_bytes
from holdfast.lab.space import empty_bytes, full_bytes, node_bytes
from holdfast.lab.tracking import keep_tracking_room, stop_tracking
from holdfast.lab.trees import forget_bases, inherited_config, show_base, show_parents

__all__ = [
    "activate_vdi",
    "begin_epoch",
    "check_sr_attached",
    "clone_vdi",
    "create_vdi",
    "data_destroy_vdi",
    "deactivate_vdi",
    "destroy_vdi",
    "disk_uuid",
    "drop_bytes",
    "has_tree",
    "mark_written",
    "refresh_sr",
    "refresh_vdi",
    "resize_vdi",
    "snapshot_vdi",
    "tell_sizes",
]

_INHERITED = (
    "name_label",
    "name_description",
    "type",
    "sharable",
    "tags",
    "xenstore_data",
    "on_boot",
    "allow_caching",
    "other_config",
)
_IMAGE_BYTES_MAX = {"vhd": limits.VHD_DISK_BYTES_MAX, "qcow2": QCOW2_DISK_BYTES_MAX}
_CLUSTER_BYTES = {"vhd": VHD_BLOCK_BYTES, "qcow2": 64 * 1024}
_DEVICE_BYTES = TIB
"""What a device or share holds that nobody described."""

_METADATA_CONTENT = "/No content: this is a cbt_metadata VDI/"


def disk_uuid(pool: PoolCore, vdi: str) -> str:
    """Return the name of the disk's bytes in the store."""
    return pool.db.text("VDI", vdi, "uuid")


def check_sr_attached(pool: PoolCore, sr: str) -> None:
    """Return when a host that can work on the repository has it, for a shared one the master; ``SR_HAS_NO_PBDS``
    otherwise."""
    db = pool.db
    pbds = [pbd for pbd in db.texts("SR", sr, "PBDs") if db.flag("PBD", pbd, "currently_attached")]
    if db.flag("SR", sr, "shared"):
        pbds = [pbd for pbd in pbds if db.text("PBD", pbd, "host") == pool.master_ref]
    if not pbds:
        raise ApiFailure("SR_HAS_NO_PBDS", sr)


def create_vdi(pool: PoolCore, record: Fields) -> str:
    """Make an empty disk from a constructor's record and return its reference."""
    db = pool.db
    sr = str(record["SR"])
    db.row("SR", sr)
    check_sr_attached(pool, sr)
    if record["type"] == CBT_METADATA:
        raise ApiFailure("VDI_INCOMPATIBLE_TYPE", "", "CBT metadata")
    meet_sr_fault(pool, sr, "create")
    driver = driver_of(db.text("SR", sr, "type"))
    kept = ("name_label", "type", "sharable", "other_config", "xenstore_data", "tags")
    fields: Fields = {name: record[name] for name in kept}
    size_bytes = int(cast(int, record["virtual_size"]))
    if driver.kind is ImageKind.TREE:
        config = dict(cast("dict[str, str]", record["sm_config"]))
        chosen, size_bytes = _image_for(pool, sr, config, size_bytes=size_bytes)
        config |= {"image-format": chosen} if chosen != "vhd" else {}
        # A driver of plain images forgets these, as recorded from a real pool.
        fields |= {"name_description": record["name_description"], "read_only": record["read_only"]}
        fields["sm_config"] = config
        pool.space.check_room(sr, needed_bytes=full_bytes(size_bytes, driver=driver))
    uuid = new_disk_uuid(pool.entropy)
    try:
        pool.disks.create(uuid, size_bytes)
    except DiskSizeInvalid as cause:
        raise ApiFailure("SR_BACKEND_FAILURE_79", "", f"VDI Invalid size [opterr={cause}]", "") from cause
    with db.transaction():
        vdi = _add_record(pool, uuid, {**fields, "SR": sr, "virtual_size": size_bytes})
        _tell_space(pool, sr, grown_bytes=size_bytes)
    return vdi


def _image_for(pool: PoolCore, sr: str, config: dict[str, str], *, size_bytes: int) -> tuple[str, int]:
    """Return the format for a new disk of a tree, and its size in whole blocks of that format."""
    asked = config.get("image-format")
    for chosen in [asked] if asked else _preferred_formats(pool, sr):
        limit_bytes = _IMAGE_BYTES_MAX.get(chosen, -1)
        if chosen in driver_of(pool.db.text("SR", sr, "type")).formats and 0 <= size_bytes <= limit_bytes:
            step_bytes = _CLUSTER_BYTES[chosen]
            return chosen, max(1, -(-size_bytes // step_bytes)) * step_bytes
    limit_mb = _IMAGE_BYTES_MAX.get(asked or "vhd", limits.VHD_DISK_BYTES_MAX) // (1 << 20)
    text = f"VDI Invalid size [opterr=VDI size must be between 1 MB and {limit_mb} MB]"
    raise ApiFailure("SR_BACKEND_FAILURE_79", "", text, "")


def _preferred_formats(pool: PoolCore, sr: str) -> list[str]:
    """Return the formats to try: what the attachment prefers, or VHD alone, which every driver of trees has."""
    db = pool.db
    for pbd in db.texts("SR", sr, "PBDs"):
        wanted = db.mapping("PBD", pbd, "device_config").get("preferred-image-formats")
        if wanted:
            return [name.strip() for name in wanted.replace("[", "").replace("]", "").split(",")]
    return ["vhd"]


def _add_record(pool: PoolCore, uuid: str, fields: Fields) -> str:
    defaults: Fields = {"uuid": uuid, "location": uuid, "managed": True, "parent": NULL_REF}
    vdi = pool.db.create("VDI", {**defaults, **fields})
    _note_size(pool, vdi)
    return vdi


def _note_size(pool: PoolCore, *vdis: str) -> None:
    """Say on the records what the disks take; the driver does so at each change of its own, not as a guest writes."""
    pool.space.measure(*vdis)
    for vdi in vdis:
        pool.db.set("VDI", vdi, "physical_utilisation", node_bytes(pool.db, pool.disks, vdi))


def _tell_space(pool: PoolCore, sr: str, *, grown_bytes: int) -> None:
    """Say on the repository's record what a change of a disk did; plain images wait for the next scan."""
    db = pool.db
    if has_vhd_disks(db, sr):
        virtual_bytes = max(0, db.number("SR", sr, "virtual_allocation") + grown_bytes)
        used_bytes = pool.space.used_bytes(sr)
        db.update("SR", sr, {"virtual_allocation": virtual_bytes, "physical_utilisation": used_bytes})


def snapshot_vdi(pool: PoolCore, vdi: str, *, taken_at: str | None = None) -> str:
    """Freeze the disk and return the snapshot's reference; it takes the change log over."""
    db = pool.db
    if pool.delays.snapshot_s:
        pool.clock.sleep(pool.delays.snapshot_s)
    meet_disk_fault(pool, vdi, "snapshot")
    lose_tracking(pool, vdi)
    _check_branch(pool, vdi, is_clone=False)
    uuid = new_disk_uuid(pool.entropy)
    with db.transaction():
        made = pool.disks.snapshot(disk_uuid(pool, vdi), uuid)
        fields = _inherited(pool, vdi) | {
            "is_a_snapshot": True,
            "snapshot_of": vdi,
            "snapshot_time": taken_at or pool.now(),
            "cbt_enabled": db.flag("VDI", vdi, "cbt_enabled"),
        }
        snapshot = _add_branch(pool, made, uuid, fields, vdi=vdi)
        keep_tracking_room(pool, vdi)
        return snapshot


def clone_vdi(pool: PoolCore, vdi: str) -> str:
    """Make a second, independent disk of the same content and return its reference."""
    meet_disk_fault(pool, vdi, "clone")
    _check_branch(pool, vdi, is_clone=True)
    uuid = new_disk_uuid(pool.entropy)
    with pool.db.transaction():
        made = pool.disks.clone(disk_uuid(pool, vdi), uuid)
        return _add_branch(pool, made, uuid, _inherited(pool, vdi) | {"snapshot_time": pool.now()}, vdi=vdi)


def has_tree(pool: PoolCore, vdi: str) -> bool:
    """Whether the disk can branch: a raw volume, which one may ask for, cannot."""
    return pool.db.mapping("VDI", vdi, "sm_config").get("type") != "raw"


def _check_branch(pool: PoolCore, vdi: str, *, is_clone: bool) -> None:
    """Return when the repository can put a second disk beside this one.

    A thick one needs room for both as they will be; what the present image does not hold comes back to it.
    """
    db = pool.db
    sr = db.text("VDI", vdi, "SR")
    driver = driver_of(db.text("SR", sr, "type"))
    if driver.kind is not ImageKind.TREE:
        return
    if not has_tree(pool, vdi):
        raise ApiFailure("UNIMPLEMENTED_IN_SM_BACKEND", sr)
    size_bytes = db.number("VDI", vdi, "virtual_size")
    empty, full = empty_bytes(size_bytes, driver=driver), full_bytes(size_bytes, driver=driver)
    is_frozen = db.flag("VDI", vdi, "is_a_snapshot")
    needed_bytes = (empty if is_frozen else full) + (full if is_clone else empty)
    if driver.is_thick and not is_frozen:
        held_bytes = pool.disks.used_bytes(disk_uuid(pool, vdi))
        needed_bytes -= max(0, full - empty - held_bytes)
    pool.space.check_room(sr, needed_bytes=needed_bytes)


def _add_branch(pool: PoolCore, made: SnapshotMade, uuid: str, fields: Fields, *, vdi: str) -> str:
    copy = _add_record(pool, uuid, fields)
    base, sr = str(made.base_uuid), pool.db.text("VDI", vdi, "SR")
    show_base(pool, base, like=vdi)
    show_parents(pool, (disk_uuid(pool, vdi), uuid))
    if has_vhd_disks(pool.db, sr):
        _note_size(pool, vdi)
    _tell_space(pool, sr, grown_bytes=pool.db.number("VDI", copy, "virtual_size"))
    return copy


def _inherited(pool: PoolCore, vdi: str) -> Fields:
    row = pool.db.row("VDI", vdi)
    fields: Fields = {name: row.fields[name] for name in _INHERITED}
    size: Fields = {"SR": row.fields["SR"], "virtual_size": row.fields["virtual_size"]}
    return fields | size | {"sm_config": inherited_config(pool, vdi) if has_vhd_disks(pool.db, str(size["SR"])) else {}}


def destroy_vdi(pool: PoolCore, vdi: str) -> None:
    """Remove the disk with its VBDs. The base copies under it stay until the repository's garbage is collected."""
    db = pool.db
    meet_disk_fault(pool, vdi, "destroy")
    with db.transaction():
        for vbd in db.texts("VDI", vdi, "VBDs"):
            db.destroy("VBD", vbd)
        for row in db.rows("VM"):
            if row.fields["suspend_VDI"] == vdi:
                db.set("VM", row.ref, "suspend_VDI", NULL_REF)
        sr, size_bytes = db.text("VDI", vdi, "SR"), db.number("VDI", vdi, "virtual_size")
        uuid = disk_uuid(pool, vdi)
        db.destroy("VDI", vdi)
        _free(pool, sr, uuid, keeps_log=False)
        pool.space.drop(sr, uuid)
        _tell_space(pool, sr, grown_bytes=-size_bytes)


def data_destroy_vdi(pool: PoolCore, vdi: str) -> None:
    """Free a snapshot's data; the record and its change log stay."""
    db = pool.db
    with db.transaction():
        config = {**db.mapping("VDI", vdi, "other_config"), "content_id": _METADATA_CONTENT}
        sm_config = {key: value for key, value in db.mapping("VDI", vdi, "sm_config").items() if key != "vhd-parent"}
        db.update("VDI", vdi, {"other_config": config, "sm_config": sm_config})
        sr = db.text("VDI", vdi, "SR")
        _free(pool, sr, disk_uuid(pool, vdi), keeps_log=True)
        _note_size(pool, vdi)
        _tell_space(pool, sr, grown_bytes=0)


def _free(pool: PoolCore, sr: str, uuid: str, *, keeps_log: bool) -> None:
    if not pool.disks.exists(uuid):
        return
    below = pool.disks.chain(uuid)[1:]
    if keeps_log:
        pool.disks.data_destroy(uuid)
    else:
        pool.disks.destroy(uuid)
    if has_vhd_disks(pool.db, sr):
        collect_later(pool, sr)
    else:
        forget_bases(pool, sr, pool.disks.prune(below))


def resize_vdi(pool: PoolCore, vdi: str, size_bytes: int) -> None:
    """Grow the disk; its change log grows with it."""
    db = pool.db
    meet_disk_fault(pool, vdi, "resize")
    sr, before_bytes = db.text("VDI", vdi, "SR"), db.number("VDI", vdi, "virtual_size")
    driver = driver_of(db.text("SR", sr, "type"))
    if size_bytes < before_bytes:
        text = "VDI Invalid size [opterr=shrinking not allowed]"
        raise ApiFailure("SR_BACKEND_FAILURE_79", "", text, "")
    if driver.kind is ImageKind.TREE:
        config = {"image-format": db.mapping("VDI", vdi, "sm_config").get("image-format", "vhd")}
        size_bytes = max(before_bytes, _image_for(pool, sr, config, size_bytes=size_bytes)[1])
        grown = full_bytes(size_bytes, driver=driver) - full_bytes(before_bytes, driver=driver)
        pool.space.check_room(sr, needed_bytes=grown)
    try:
        pool.disks.resize(disk_uuid(pool, vdi), size_bytes)
    except DiskSizeInvalid as cause:
        raise ApiFailure("SR_BACKEND_FAILURE_110", "", f"VDI resize failed [opterr={cause}]", "") from cause
    with db.transaction():
        db.set("VDI", vdi, "virtual_size", size_bytes)
        _note_size(pool, vdi)
        keep_tracking_room(pool, vdi)
        _tell_space(pool, sr, grown_bytes=size_bytes - before_bytes)


def begin_epoch(pool: PoolCore, vdi: str) -> None:
    """Note that a VM boots from its disks: one that is reset on boot forgets what was written since it became so."""
    if pool.db.text("VDI", vdi, "on_boot") == "reset":
        pool.disks.reset(disk_uuid(pool, vdi))
        pool.space.measure(vdi)


def activate_vdi(pool: PoolCore, vdi: str, *, is_writable: bool) -> None:
    """Note that somebody begins to use the disk. A writer makes its content another one, and a change log that a
    crash left in doubt is found out now."""
    db = pool.db
    if not is_writable or not db.exists("VDI", vdi):
        return
    with db.transaction():
        db.drop_key("VDI", vdi, "other_config", key="content_id")
        if db.flag("VDI", vdi, "cbt_enabled") and not pool.disks.log_is_consistent(disk_uuid(pool, vdi)):
            stop_tracking(pool, vdi, "VDI_CBT_METADATA_INCONSISTENT")


def deactivate_vdi(pool: PoolCore, vdi: str) -> None:
    """Note that nobody uses the disk any more: its content has a name again."""
    db = pool.db
    if db.exists("VDI", vdi) and "content_id" not in db.mapping("VDI", vdi, "other_config"):
        db.put_key("VDI", vdi, "other_config", key="content_id", value=pool.new_uuid())


def mark_written(pool: PoolCore, vdi: str) -> None:
    """Note that the disk's content is another one now."""
    with pool.db.transaction():
        pool.db.put_key("VDI", vdi, "other_config", key="content_id", value=pool.new_uuid())
        pool.space.measure(vdi)


def drop_bytes(pool: PoolCore, uuids: Collection[str]) -> None:
    """Remove disks that have no record any more, and the base copies among them, for good."""
    bases = [uuid for uuid in uuids if pool.disks.exists(uuid) and pool.disks.is_base_copy(uuid)]
    for uuid in uuids:
        if uuid not in bases and pool.disks.exists(uuid):
            pool.disks.destroy(uuid)
    pool.disks.prune(bases)


def tell_sizes(pool: PoolCore, sr: str) -> None:
    """Say on the record what the repository holds and how large it is, as its driver does when it is asked."""
    db = pool.db
    sizes: Fields = {"physical_utilisation": pool.space.used_bytes(sr)}
    if db.number("SR", sr, "physical_size") < 0:
        sizes["physical_size"] = known_size_bytes(pool, db.text("SR", sr, "uuid")) or _DEVICE_BYTES
    db.update("SR", sr, sizes)


def refresh_vdi(pool: PoolCore, vdi: str) -> None:
    """Look at one disk anew."""
    _note_size(pool, vdi)


def refresh_sr(pool: PoolCore, sr: str) -> None:
    """Count the repository's space anew."""
    db = pool.db
    with db.transaction():
        used_bytes = pool.space.count_anew(sr)
        virtual_bytes = 0
        for vdi in db.texts("SR", sr, "VDIs"):
            node = node_bytes(db, pool.disks, vdi)
            if db.number("VDI", vdi, "physical_utilisation") != node:
                db.set("VDI", vdi, "physical_utilisation", node)
            virtual_bytes += db.number("VDI", vdi, "virtual_size")
        db.update("SR", sr, {"virtual_allocation": virtual_bytes, "physical_utilisation": used_bytes})
