"""Hashing disks, and remembering destroyed snapshots so that their hash can still be asked for.

This is the proof behind every restore on the lab: the hash of what was snapshotted, computed on the pool's side, long
after the backup destroyed the snapshot. Invariant: an answer is always computed from the bytes that the snapshot held;
a witness whose layer must go is hashed first.
"""

from __future__ import annotations

import hashlib

from holdfast.core import MIB
from holdfast.lab.disks import chain
from holdfast.lab.disks.catalog import Catalog, Digest, Disk, Role, Witness
from holdfast.lab.disks.layer import Layer

__all__ = ["disk_sha256", "keep_witness", "settle_beside", "settle_surplus", "witness_sha256"]

_WITNESS_LAYERS_MAX = 64
"""Their bytes take space on the lab's machine; older ones are hashed and let go."""

_WITNESSES_MAX = 4096
"""Hashes alone are small; no run of the lab asks for older ones."""

_PIECE_BYTES = 4 * MIB
_ZEROS = bytes(_PIECE_BYTES)


def disk_sha256(disk: Disk, layer: Layer) -> str:
    """Return the hash of the disk's whole content in hex; remembered until the next write."""
    known = disk.digest
    if (
        known is not None
        and known.layer is layer
        and known.writes == layer.writes
        and known.size_bytes == disk.size_bytes
    ):
        return known.sha256
    writes = layer.writes
    answer = _sha256(layer, size_bytes=disk.size_bytes)
    disk.digest = Digest(layer, writes, disk.size_bytes, answer)
    return answer


def keep_witness(catalog: Catalog, disk: Disk) -> None:
    """Keep the bytes of a snapshot that is about to lose them. The caller holds the catalog's lock and saves."""
    if catalog.keeps_witnesses and disk.role is Role.SNAPSHOT and disk.layer is not None:
        catalog.witnesses[disk.uuid] = Witness(disk.uuid, disk.size_bytes, disk.layer, None)
        while len(catalog.witnesses) > _WITNESSES_MAX:
            del catalog.witnesses[next(iter(catalog.witnesses))]


def witness_sha256(catalog: Catalog, seen: Witness) -> str:
    """Return the hash of a destroyed snapshot; from then on only the hash is kept."""
    layer = seen.layer
    if seen.sha256 is None and layer is not None:
        answer = _sha256(layer, size_bytes=seen.size_bytes)
        with catalog.lock:
            seen.sha256, seen.layer = answer, None
            catalog.save()
    assert seen.sha256 is not None
    return seen.sha256


def settle_surplus(catalog: Catalog) -> None:
    """Reduce the oldest witnesses to their hash when more bytes are kept than we allow."""
    while True:
        with catalog.lock:
            holding = [seen for seen in catalog.witnesses.values() if seen.layer is not None]
        if len(holding) <= _WITNESS_LAYERS_MAX:
            return
        witness_sha256(catalog, holding[0])


def settle_beside(catalog: Catalog, layer: Layer) -> None:
    """Reduce the witnesses that a merge of ``layer`` into its parent would change to their hash."""
    with catalog.lock:
        beside = catalog.witnesses_beside(layer)
    for seen in beside:
        witness_sha256(catalog, seen)


def _sha256(layer: Layer, *, size_bytes: int) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_PIECE_BYTES))
    position = 0
    for extent in chain.data_extents(layer, 0, size_bytes):
        _feed_zeros(digest, extent.offset_bytes - position)
        for offset in range(extent.offset_bytes, extent.end_bytes, _PIECE_BYTES):
            part = buffer[: min(_PIECE_BYTES, extent.end_bytes - offset)]
            chain.read_into(layer, part, offset)
            digest.update(part)
        position = extent.end_bytes
    _feed_zeros(digest, size_bytes - position)
    return digest.hexdigest()


def _feed_zeros(digest: hashlib._Hash, length_bytes: int) -> None:
    view = memoryview(_ZEROS)
    for low in range(0, length_bytes, _PIECE_BYTES):
        digest.update(view[: min(_PIECE_BYTES, length_bytes - low)])
