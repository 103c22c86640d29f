"""How much space a repository takes, by kind of object."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.repository.layout import (
    CANARY_PREFIX,
    CATALOGUE_PREFIX,
    CONDEMNED_PREFIX,
    CONFIG_KEY,
    EPOCHS_PREFIX,
    FEATURES_PREFIX,
    HOLDERS_PREFIX,
    HOLES_PREFIX,
    IMMUTABILITY_PREFIX,
    INDEX_PREFIX,
    KEYS_PREFIX,
    LEASES_PREFIX,
    MOVED_PREFIX,
    PACKS_PREFIX,
    POINTS_PREFIX,
    PROOFS_PREFIX,
    QUARANTINE_PREFIX,
)
from holdfast.storage import ObjectStore

__all__ = ["Usage", "UsageOf", "measure_usage"]

_KINDS = (
    (PACKS_PREFIX, "packs"),
    (POINTS_PREFIX, "points"),
    (INDEX_PREFIX, "indexes"),
    (CATALOGUE_PREFIX, "catalogues"),
    (LEASES_PREFIX, "leases"),
    (CONDEMNED_PREFIX, "condemned lists"),
    (MOVED_PREFIX, "moved records"),
    (QUARANTINE_PREFIX, "quarantine notes"),
    (HOLES_PREFIX, "hole records"),
    (PROOFS_PREFIX, "proofs"),
    (EPOCHS_PREFIX, "key epochs"),
    (HOLDERS_PREFIX, "records of key holders"),
    (IMMUTABILITY_PREFIX, "lock policies"),
    (CANARY_PREFIX, "canaries"),
    (KEYS_PREFIX, "keys"),
    (CONFIG_KEY, "description"),
    (FEATURES_PREFIX, "features"),
)
_OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageOf:
    """The objects of one kind."""

    kind: str
    objects: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Every object in the store, each in exactly one kind."""

    kinds: tuple[UsageOf, ...]

    @property
    def length_bytes(self) -> int:
        """All bytes that the store lists."""
        return sum(each.length_bytes for each in self.kinds)

    @property
    def objects(self) -> int:
        """All objects that the store lists."""
        return sum(each.objects for each in self.kinds)


def measure_usage(store: ObjectStore) -> Usage:
    """Return the usage, from one listing."""
    objects: dict[str, int] = {}
    length_bytes: dict[str, int] = {}
    for info in store.list(""):
        kind = next((kind for prefix, kind in _KINDS if info.key.startswith(prefix)), _OTHER)
        objects[kind] = objects.get(kind, 0) + 1
        length_bytes[kind] = length_bytes.get(kind, 0) + info.length_bytes
    names = [kind for _, kind in _KINDS] + [_OTHER]
    return Usage(
        tuple(
            UsageOf(kind=kind, objects=objects[kind], length_bytes=length_bytes[kind])
            for kind in names
            if kind in objects
        )
    )
