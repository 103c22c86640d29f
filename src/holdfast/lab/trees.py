"""The copy-on-write trees of a repository as its records show them: hidden base copies, and who stands on whom.

Invariant: the records of a repository of trees say what the disk store has: one unmanaged VDI per base copy, and
``sm_config:vhd-parent`` on whatever stands on one.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.lab.context import PoolCore
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH
from holdfast.lab.rules import has_vhd_disks
from holdfast.lab.space import node_bytes

__all__ = ["base_copies", "forget_bases", "inherited_config", "show_base", "show_parents"]

_STAYS = frozenset({"type", "vdi_type", "vhd-parent", "paused", "relinking", "activating", "image-format"})
"""What a disk's ``sm_config`` does not hand down: it is true of that node alone."""


def inherited_config(pool: PoolCore, vdi: str) -> dict[str, str]:
    """Return the storage settings that a disk hands down to its snapshots and clones."""
    config = pool.db.mapping("VDI", vdi, "sm_config")
    return {key: value for key, value in config.items() if key not in _STAYS and not key.startswith("host_")}


def base_copies(pool: PoolCore, sr: str) -> list[str]:
    """Return the repository's hidden base copies."""
    db = pool.db
    return [vdi for vdi in db.texts("SR", sr, "VDIs") if not db.flag("VDI", vdi, "managed")]


def show_base(pool: PoolCore, base: str, *, like: str) -> None:
    """Make a base copy visible as a repository of trees does; ``like`` is a disk that became it."""
    db = pool.db
    sr = db.text("VDI", like, "SR")
    if not has_vhd_disks(db, sr) or db.has_uuid("VDI", base):
        return
    kept = {key: db.mapping("VDI", like, "sm_config")[key] for key in ("image-format",) if _has(pool, like, key)}
    fields: Fields = {
        "uuid": base,
        "location": base,
        "name_label": "base copy",
        "SR": sr,
        "virtual_size": pool.disks.size_bytes(base),
        "type": db.text("VDI", like, "type"),
        "managed": False,
        "read_only": True,
        "other_config": {},
        "sm_config": kept,
        "snapshot_time": EPOCH,
    }
    vdi = db.create("VDI", fields)
    show_parents(pool, [base])
    pool.space.measure(vdi)
    db.set("VDI", vdi, "physical_utilisation", node_bytes(db, pool.disks, vdi))


def _has(pool: PoolCore, vdi: str, key: str) -> bool:
    return key in pool.db.mapping("VDI", vdi, "sm_config")


def show_parents(pool: PoolCore, uuids: Iterable[str]) -> None:
    """Say on the records of these disks what they stand on now."""
    db = pool.db
    for uuid in uuids:
        if not db.has_uuid("VDI", uuid):
            continue
        vdi = db.by_uuid("VDI", uuid)
        if not has_vhd_disks(db, db.text("VDI", vdi, "SR")):
            continue
        parent = pool.disks.parent(uuid)
        if parent is None:
            db.drop_key("VDI", vdi, "sm_config", key="vhd-parent")
        else:
            db.put_key("VDI", vdi, "sm_config", key="vhd-parent", value=str(parent))


def forget_bases(pool: PoolCore, sr: str, uuids: Iterable[str]) -> None:
    """Remove the records of base copies that are no more."""
    db = pool.db
    for uuid in uuids:
        pool.space.drop(sr, uuid)
        if db.has_uuid("VDI", uuid):
            db.destroy("VDI", db.by_uuid("VDI", uuid))
