"""The list of disks and how their layers stand on each other, kept in one small file.

The file is replaced atomically at every change of the tree, before the caller hears of success: what was acknowledged
survives a killed lab (not a power cut; the lab does not flush). A change that cannot be kept did not happen: the tree
is what the file says again. Invariants: every layer and log that the file names was named before it was written to, has
a map beside it, and is deleted only after a newer file stopped naming it; no store opens whose files disagree with
their maps.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from holdfast.core import from_json
from holdfast.lab.disks.errors import (
    DiskExists,
    DisksDamaged,
    DiskStoreDamaged,
    DiskStoreInUse,
    DiskStoreOutdated,
    DiskUnknown,
)
from holdfast.lab.disks.files import OpenFiles, refused_when_full
from holdfast.lab.disks.granules import GranuleMap, granules_of
from holdfast.lab.disks.layer import Layer
from holdfast.lab.disks.listing import (
    CATALOG_VERSION,
    Role,
    StoredCatalog,
    StoredDisk,
    StoredLayer,
    StoredLog,
    StoredVersion,
    StoredWitness,
)
from holdfast.model import DiskUuid

__all__ = ["SCRATCH_PREFIX", "Catalog", "CbtLog", "Digest", "Disk", "Role", "Witness"]

SCRATCH_PREFIX = "scratch-"
_OWN_FILE = re.compile(r"(?:layer|log)-(\d{8})\.(?:data|map)")


@dataclass(slots=True, eq=False)
class CbtLog:
    """What was written to a disk since the snapshot before it; linked to its neighbours in time."""

    number: int
    changed: GranuleMap
    parent: DiskUuid | None = None
    child: DiskUuid | None = None
    is_consistent: bool = True
    """False when its host died while the disk was written: some writes may be missing from it."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A hash that holds as long as the layer and its write count are these."""

    layer: Layer
    writes: int
    size_bytes: int
    sha256: str


@dataclass(slots=True, eq=False)
class Disk:
    """One disk. ``lock`` is held while its top layer is written or exchanged; the catalog's lock comes first."""

    uuid: DiskUuid
    size_bytes: int
    role: Role
    layer: Layer | None
    log: CbtLog | None = None
    digest: Digest | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True, eq=False)
class Witness:
    """What is remembered of a destroyed snapshot: its bytes, or only their hash."""

    uuid: DiskUuid
    size_bytes: int
    layer: Layer | None
    sha256: str | None


class Catalog:
    """All disks of one folder. Whoever changes the tree holds ``lock`` and calls ``save`` before letting go."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.RLock()
        self.files = OpenFiles()
        self.disks: dict[DiskUuid, Disk] = {}
        self.witnesses: dict[DiskUuid, Witness] = {}
        self.keeps_witnesses = False
        self.folder = folder
        self._path = folder / "disks.json"
        self._next_number = 1
        self._stored_layers: dict[int, Layer] = {}
        self._stored_logs: dict[int, CbtLog] = {}
        self._batches = 0
        self._is_batch_unsaved = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._guard = _guard(folder)
        self.is_new = not self._path.exists()
        try:
            if not self.is_new:
                self._load()
        except BaseException:
            os.close(self._guard)
            raise

    def disk(self, uuid: str) -> Disk:
        """Return the disk; ``DiskUnknown`` when there is none."""
        disk = self.disks.get(DiskUuid(uuid))
        if disk is None:
            raise DiskUnknown(disk=uuid)
        return disk

    def check_free(self, uuid: str) -> DiskUuid:
        """Return ``uuid`` as a disk's; ``DiskExists`` when it is taken."""
        if uuid in self.disks:
            raise DiskExists(disk=uuid)
        return DiskUuid(uuid)

    def new_layer(self, *, parent: Layer | None, size_bytes: int) -> Layer:
        """Return a fresh, empty layer; it has no file yet. Even that of a disk of no size covers a byte."""
        number, size_bytes = self._take_number(), max(1, size_bytes)
        return Layer(self.folder, number=number, parent=parent, size_bytes=size_bytes, files=self.files, is_new=True)

    def new_log(self, *, size_bytes: int) -> CbtLog:
        """Return a fresh change log that has seen nothing."""
        return self._log(self._take_number(), size_bytes=size_bytes, is_new=True)

    def children(self, layer: Layer) -> list[Disk]:
        """Return the disks whose own layer stands directly on ``layer``."""
        return [disk for disk in self.disks.values() if disk.layer is not None and disk.layer.parent is layer]

    def witnesses_beside(self, layer: Layer) -> list[Witness]:
        """Return the witnesses whose bytes come from below ``layer``, but not by way of it."""
        found = []
        for seen in self.witnesses.values():
            lineage = [] if seen.layer is None else seen.layer.lineage()
            if layer.parent in lineage and layer not in lineage:
                found.append(seen)
        return found

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Let many changes become durable together at the end of the outermost block. Holds ``lock`` meanwhile: nobody
        hears of a change that could still be lost."""
        with self.lock:
            self._batches += 1
            try:
                yield
            finally:
                self._batches -= 1
                if not self._batches and self._is_batch_unsaved:
                    self.save()

    def save(self) -> None:
        """Make the tree durable as it is now, then delete what it no longer needs.

        When that fails the tree is as it was before, and the error tells why: ``DiskStoreFull``, or an ``OSError``.
        """
        self._is_batch_unsaved = self._batches > 0
        if self._is_batch_unsaved:
            return
        layers = self._reachable_layers()
        logs = {disk.log.number: disk.log for disk in self.disks.values() if disk.log is not None}
        try:
            with refused_when_full(self.folder):
                self._write(layers, logs)
        except BaseException:
            self._revert()
            raise
        for number, layer in self._stored_layers.items():
            if number not in layers:
                layer.remove()
        for number, log in self._stored_logs.items():
            if number not in logs:
                log.changed.remove()
        self._stored_layers, self._stored_logs = layers, logs

    def _write(self, layers: dict[int, Layer], logs: dict[int, CbtLog]) -> None:
        for number in layers.keys() - self._stored_layers.keys():
            layers[number].states.make()
        for number in logs.keys() - self._stored_logs.keys():
            logs[number].changed.make()
        temporary = self._path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(self._stored(layers)))
        temporary.replace(self._path)

    def _revert(self) -> None:
        """Make the tree again what the file says, of the same objects: others hold their locks."""
        if self._path.exists():
            self._adopt(from_json(self._path.read_bytes(), StoredCatalog))
        else:
            self.disks.clear()
            self.witnesses.clear()

    def clear(self) -> None:
        """Forget every disk and witness, for good."""
        with self.lock:
            self.disks.clear()
            self.witnesses.clear()
            self.save()

    def close(self) -> None:
        """Let go of the files and of the folder. Safe to call twice."""
        with self.lock:
            self.files.close()
            if self._guard >= 0:
                os.close(self._guard)
                self._guard = -1

    def _take_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    def _log(self, number: int, *, size_bytes: int, is_new: bool) -> CbtLog:
        path = self.folder / f"log-{number:08d}.map"
        granules = max(1, granules_of(size_bytes))
        return CbtLog(number, GranuleMap(path, granules=granules, files=self.files, is_new=is_new))

    def drop_childless_bases(self, candidates: Collection[str]) -> list[DiskUuid]:
        """Forget those of the candidates that are base copies on which nothing visible stands; return which."""
        dropped: list[DiskUuid] = []
        while True:
            stood_on = {disk.layer.parent for disk in self.disks.values() if disk.layer is not None}
            found = (self.disks.get(DiskUuid(uuid)) for uuid in candidates)
            idle = [
                disk.uuid
                for disk in found
                if disk is not None and disk.role is Role.BASE and disk.layer not in stood_on
            ]
            if not idle:
                return dropped
            for uuid in idle:
                del self.disks[uuid]
            dropped += idle

    def _reachable_layers(self) -> dict[int, Layer]:
        tops = [disk.layer for disk in self.disks.values()] + [witness.layer for witness in self.witnesses.values()]
        found: dict[int, Layer] = {}
        for top in tops:
            layer = top
            while layer is not None and layer.number not in found:
                found[layer.number] = layer
                layer = layer.parent
        return found

    def _stored(self, layers: dict[int, Layer]) -> StoredCatalog:
        return StoredCatalog(
            version=CATALOG_VERSION,
            next_number=self._next_number,
            keeps_witnesses=self.keeps_witnesses,
            layers=[
                StoredLayer(layer.number, layer.parent.number if layer.parent else None, layer.size_bytes)
                for layer in layers.values()
            ],
            disks=[
                StoredDisk(
                    disk.uuid,
                    disk.size_bytes,
                    disk.role,
                    disk.layer.number if disk.layer else None,
                    _stored_log(disk.log) if disk.log else None,
                )
                for disk in self.disks.values()
            ],
            witnesses=[
                StoredWitness(seen.uuid, seen.size_bytes, seen.layer.number if seen.layer else None, seen.sha256)
                for seen in self.witnesses.values()
            ],
        )

    def _load(self) -> None:
        content = self._path.read_bytes()
        try:
            version = from_json(content, StoredVersion).version
            if version != CATALOG_VERSION:
                raise DiskStoreOutdated(path=self._path, version=version, expected=CATALOG_VERSION)
            self._adopt(from_json(content, StoredCatalog))
        except msgspec.DecodeError as cause:
            raise DiskStoreDamaged(path=self._path, reason=str(cause)) from cause
        except KeyError as cause:
            raise DiskStoreDamaged(path=self._path, reason=f"layer {cause} is named but not described") from cause
        self._check_files()
        self._sweep()

    def _adopt(self, stored: StoredCatalog) -> None:
        """Make the tree what ``stored`` says, of the objects that are there and of new ones."""
        self._next_number = max(self._next_number, stored.next_number)
        self.keeps_witnesses = stored.keeps_witnesses
        layers = {kept.number: self._known_layer(kept) for kept in stored.layers}
        for kept in stored.layers:
            layers[kept.number].parent = None if kept.parent is None else layers[kept.parent]
        logs: dict[int, CbtLog] = {}
        disks: dict[DiskUuid, Disk] = {}
        for one in stored.disks:
            uuid = DiskUuid(one.uuid)
            disk = disks[uuid] = self.disks.get(uuid) or Disk(uuid, one.size_bytes, one.role, None)
            disk.size_bytes, disk.role, disk.log = one.size_bytes, one.role, None
            disk.layer = None if one.layer is None else layers[one.layer]
            if one.log is not None:
                disk.log = logs[one.log.number] = self._known_log(one.log, size_bytes=one.size_bytes)
        self.disks.clear()
        self.disks.update(disks)
        self.witnesses.clear()
        for seen in stored.witnesses:
            layer = None if seen.layer is None else layers[seen.layer]
            self.witnesses[DiskUuid(seen.uuid)] = Witness(DiskUuid(seen.uuid), seen.size_bytes, layer, seen.sha256)
        self._stored_layers, self._stored_logs = layers, logs

    def _known_layer(self, kept: StoredLayer) -> Layer:
        layer = self._stored_layers.get(kept.number)
        if layer is None:
            size_bytes = kept.size_bytes
            return Layer(
                self.folder, number=kept.number, parent=None, size_bytes=size_bytes, files=self.files, is_new=False
            )
        layer.size_bytes = kept.size_bytes
        return layer

    def _known_log(self, kept: StoredLog, *, size_bytes: int) -> CbtLog:
        log = self._stored_logs.get(kept.number) or self._log(kept.number, size_bytes=size_bytes, is_new=False)
        log.parent = None if kept.parent is None else DiskUuid(kept.parent)
        log.child = None if kept.child is None else DiskUuid(kept.child)
        log.is_consistent = kept.is_consistent
        return log

    def _check_files(self) -> None:
        """Return when every layer and every change log is what was written; ``DisksDamaged`` otherwise."""
        files: list[str] = []
        broken: set[int] = set()
        disks: dict[str, None] = {}
        for number, layer in self._stored_layers.items():
            try:
                layer.check()
            except DiskStoreDamaged as damage:
                files.append(f"{Path(damage.path).name} ({damage.reason})")
                broken.add(number)
        for disk in self.disks.values():
            if disk.layer is not None and any(layer.number in broken for layer in disk.layer.lineage()):
                disks[disk.uuid] = None
            try:
                if disk.log is not None:
                    disk.log.changed.stored()
            except DiskStoreDamaged as damage:
                files.append(f"{Path(damage.path).name} ({damage.reason})")
                disks[disk.uuid] = None
        for seen in self.witnesses.values():
            if seen.layer is not None and any(layer.number in broken for layer in seen.layer.lineage()):
                disks[seen.uuid] = None
        if files:
            raise DisksDamaged(folder=self.folder, files=files, disks=list(disks))

    def _sweep(self) -> None:
        """Delete files that a lab killed between two steps left behind."""
        named = {*self._stored_layers, *self._stored_logs}
        for path in self.folder.iterdir():
            match = _OWN_FILE.fullmatch(path.name)
            if match is not None and int(match[1]) not in named:
                path.unlink(missing_ok=True)
            elif path.name.startswith(SCRATCH_PREFIX):
                shutil.rmtree(path, ignore_errors=True)


def _stored_log(log: CbtLog) -> StoredLog:
    return StoredLog(log.number, log.parent, log.child, log.is_consistent)


def _guard(folder: Path) -> int:
    """Return a descriptor whose lock says that this process owns the folder; the system frees it when we die."""
    descriptor = os.open(folder / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        os.close(descriptor)
        raise DiskStoreInUse(folder=folder) from cause
    return descriptor
