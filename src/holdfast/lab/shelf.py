"""What lies on storage though the pool has no record of it: volumes that were forgotten, and whole repositories.

A scan finds volumes again, a probe repositories. Invariant: a disk in the store has a record in the pool or a place
on the shelf, and what a driver does not write down beside the bytes (the name, on a repository of files) is lost with
the record.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from holdfast.lab.context import PoolCore
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import EPOCH, NULL_REF
from holdfast.lab.drivers import ImageKind, driver_of
from holdfast.lab.rules import CBT_METADATA
from holdfast.lab.space import node_bytes
from holdfast.lab.trees import show_parents

__all__ = [
    "drop_volumes",
    "find_repositories",
    "find_volume",
    "known_size_bytes",
    "shelve",
    "shelve_repository",
    "take_up",
    "take_up_all",
]

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
        shelves.volumes.setdefault(db.text("SR", sr, "uuid"), []).append(volume)
        _write(pool, shelves)
    pool.space.drop(sr, str(fields["uuid"]))


def find_volume(pool: PoolCore, sr: str, location: str) -> Volume | None:
    """Return the volume that lies there without a record."""
    volumes = _read(pool).volumes.get(pool.db.text("SR", sr, "uuid"), [])
    return next((volume for volume in volumes if volume["location"] == location), None)


def take_up(pool: PoolCore, sr: str, volume: Volume) -> str:
    """Make the volume's record and return it."""
    uuid = pool.db.text("SR", sr, "uuid")
    with pool.db.transaction():
        shelves = _read(pool)
        shelves.volumes[uuid] = [each for each in shelves.volumes.get(uuid, []) if each["uuid"] != volume["uuid"]]
        _write(pool, shelves)
        return _record(pool, sr, volume)


def take_up_all(pool: PoolCore, sr: str) -> None:
    """Make records of everything that the repository holds without one, as a scan does."""
    db = pool.db
    with db.transaction():
        shelves = _read(pool)
        volumes = shelves.volumes.pop(db.text("SR", sr, "uuid"), [])
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
    """Forget for good what a repository that is no more had on the shelf; return the disks' uuids."""
    with pool.db.lock:
        shelves = _read(pool)
        volumes = shelves.volumes.pop(sr_uuid, [])
        if shelves.repositories.pop(sr_uuid, None) is not None or volumes:
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


def shelve_repository(pool: PoolCore, sr: str) -> None:
    """Remember a repository that is about to be forgotten: its size, and where each host found it."""
    db = pool.db
    fields = db.row("SR", sr).fields
    ways = [db.mapping("PBD", pbd, "device_config") for pbd in db.texts("SR", sr, "PBDs")]
    known = {"type": fields["type"], "size_bytes": fields["physical_size"], "ways": ways}
    with db.lock:
        shelves = _read(pool)
        shelves.repositories[str(fields["uuid"])] = known
        _write(pool, shelves)


def find_repositories(pool: PoolCore, kind: str, device_config: Fields) -> list[tuple[str, int]]:
    """Return uuid and size of the forgotten repositories of that type which lie at that place."""
    keys = [key for key, _ in driver_of(kind).required]
    found: list[tuple[str, int]] = []
    for uuid, known in _read(pool).repositories.items():
        ways = cast("list[dict[str, str]]", known["ways"])
        is_there = any(all(way.get(key) == device_config.get(key) for key in keys) for way in ways)
        if known["type"] == kind and is_there and not pool.db.has_uuid("SR", uuid):
            found.append((uuid, int(cast(int, known["size_bytes"]))))
    return found


def known_size_bytes(pool: PoolCore, sr_uuid: str) -> int | None:
    """Return how large a repository was when it was forgotten; None when it never was."""
    known = _read(pool).repositories.get(sr_uuid)
    return None if known is None else int(cast(int, known["size_bytes"]))


@dataclass(slots=True)
class _Shelves:
    volumes: dict[str, list[Volume]] = field(default_factory=dict)
    repositories: dict[str, dict[str, object]] = field(default_factory=dict)


def _path(pool: PoolCore) -> Path:
    return pool.disks.folder / "shelved.json"


def _read(pool: PoolCore) -> _Shelves:
    try:
        return _Shelves(**json.loads(_path(pool).read_bytes()))
    except FileNotFoundError:
        return _Shelves()


def _write(pool: PoolCore, shelves: _Shelves) -> None:
    path = _path(pool)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"volumes": shelves.volumes, "repositories": shelves.repositories}))
    temporary.replace(path)
