"""Volumes that a repository holds though the pool has no record of them: disks that were forgotten, files put there.

A scan finds them again. Invariant: a disk in the store has a record in the pool or a place on the shelf, and what a
driver does not write down beside the bytes (the name, on a repository of files) is lost with the record.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from holdfast.lab.context import PoolCore
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.drivers import ImageKind, driver_of
from holdfast.lab.rules import CBT_METADATA
from holdfast.lab.space import node_bytes
from holdfast.lab.trees import show_parents

__all__ = ["drop_volumes", "find_volume", "shelve", "take_up", "take_up_all"]

_BESIDE_THE_BYTES = ("uuid", "location", "virtual_size", "managed", "read_only")
_IN_VOLUME_METADATA = ("name_label", "name_description", "type", "is_a_snapshot")
_IN_SM_CONFIG = ("image-format", "type", "vdi_type")

Volume = dict[str, object]


def shelve(pool: PoolCore, vdi: str) -> None:
    """Remember the volume of a record that is about to be forgotten."""
    db = pool.db
    fields = db.row("VDI", vdi).fields
    sr = str(fields["SR"])
    driver = driver_of(db.text("SR", sr, "type"))
    # Block devices have a volume for names; files carry only what is in them, and media are named by their file.
    knows_names = driver.is_thick or driver.kind is ImageKind.MEDIA
    kept = (*_BESIDE_THE_BYTES, *(_IN_VOLUME_METADATA if knows_names else ()))
    config = cast("dict[str, str]", fields["sm_config"])
    volume: Volume = {name: fields[name] for name in kept}
    volume["sm_config"] = {key: value for key, value in config.items() if key in _IN_SM_CONFIG}
    live = db.find("VDI", str(fields["snapshot_of"]))
    if knows_names and live is not None:
        volume["snapshot_of"] = live.fields["uuid"]
    with db.lock:
        shelves = _read(pool)
        shelves.setdefault(db.text("SR", sr, "uuid"), []).append(volume)
        _write(pool, shelves)
    pool.space.drop(sr, str(fields["uuid"]))


def find_volume(pool: PoolCore, sr: str, location: str) -> Volume | None:
    """Return the volume that lies there without a record."""
    volumes = _read(pool).get(pool.db.text("SR", sr, "uuid"), [])
    return next((volume for volume in volumes if volume["location"] == location), None)


def take_up(pool: PoolCore, sr: str, volume: Volume) -> str:
    """Make the volume's record and return it."""
    uuid = pool.db.text("SR", sr, "uuid")
    with pool.db.transaction():
        shelves = _read(pool)
        shelves[uuid] = [each for each in shelves.get(uuid, []) if each["uuid"] != volume["uuid"]]
        _write(pool, shelves)
        return _record(pool, sr, volume)


def take_up_all(pool: PoolCore, sr: str) -> None:
    """Make records of everything that the repository holds without one, as a scan does."""
    db = pool.db
    with db.transaction():
        shelves = _read(pool)
        volumes = shelves.pop(db.text("SR", sr, "uuid"), [])
        if not volumes:
            return
        _write(pool, shelves)
        made = {str(volume["uuid"]): _record(pool, sr, volume) for volume in volumes}
        show_parents(pool, made)
        for volume in volumes:
            live = str(volume.get("snapshot_of", ""))
            if db.has_uuid("VDI", live):
                db.set("VDI", made[str(volume["uuid"])], "snapshot_of", db.by_uuid("VDI", live))


def drop_volumes(pool: PoolCore, sr_uuid: str) -> list[str]:
    """Forget what lies on a repository's shelf for good; return the disks' uuids."""
    with pool.db.lock:
        shelves = _read(pool)
        volumes = shelves.pop(sr_uuid, [])
        if volumes:
            _write(pool, shelves)
    return [str(volume["uuid"]) for volume in volumes]


def _record(pool: PoolCore, sr: str, volume: Volume) -> str:
    uuid = str(volume["uuid"])
    has_data = pool.disks.exists(uuid) and pool.disks.has_data(uuid)
    kind = str(volume.get("type", "user")) if has_data else CBT_METADATA
    fields: Fields = {
        "name_label": "",
        "name_description": "",
        "snapshot_time": EPOCH,
        "parent": NULL_REF,
        **{name: value for name, value in volume.items() if name != "snapshot_of"},
        "SR": sr,
        "type": kind,
        "cbt_enabled": pool.disks.exists(uuid) and pool.disks.cbt_enabled(uuid),
    }
    vdi = pool.db.create("VDI", fields)
    pool.space.measure(vdi)
    pool.db.set("VDI", vdi, "physical_utilisation", node_bytes(pool.db, pool.disks, vdi))
    return vdi


def _path(pool: PoolCore) -> Path:
    return pool.disks.folder / "shelved.json"


def _read(pool: PoolCore) -> dict[str, list[Volume]]:
    try:
        return cast("dict[str, list[Volume]]", json.loads(_path(pool).read_bytes()))
    except FileNotFoundError:
        return {}


def _write(pool: PoolCore, shelves: dict[str, list[Volume]]) -> None:
    path = _path(pool)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(shelves))
    temporary.replace(path)
