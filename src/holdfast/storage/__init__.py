"""Object stores: one contract, several implementations, wrappers around them."""

from holdfast.storage.errors import (
    KeyRefused,
    LocationRefused,
    ObjectExists,
    ObjectMissing,
    RangeNotSatisfiable,
    StoreEmpty,
    StoreError,
    StoreFailed,
    StoreFull,
    StoreMissing,
    StoreNotAFolder,
    StoreNotReadable,
    StoreNotWritable,
    StoreUnreachable,
    StoreUnsuitable,
)
from holdfast.storage.keys import check_key
from holdfast.storage.location import open_store
from holdfast.storage.memory import MemoryStore
from holdfast.storage.posix import PosixStore
from holdfast.storage.store import ObjectInfo, ObjectStore, Part, Parts, holds

__all__ = [
    "KeyRefused",
    "LocationRefused",
    "MemoryStore",
    "ObjectExists",
    "ObjectInfo",
    "ObjectMissing",
    "ObjectStore",
    "Part",
    "Parts",
    "PosixStore",
    "RangeNotSatisfiable",
    "StoreEmpty",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreMissing",
    "StoreNotAFolder",
    "StoreNotReadable",
    "StoreNotWritable",
    "StoreUnreachable",
    "StoreUnsuitable",
    "check_key",
    "holds",
    "open_store",
]
