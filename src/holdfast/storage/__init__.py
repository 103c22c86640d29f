"""Object stores: one contract, several implementations, wrappers around them."""

from holdfast.storage.capped import CappedStore
from holdfast.storage.errors import (
    KeyRefused,
    LocationRefused,
    ObjectExists,
    ObjectLocked,
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
from holdfast.storage.faulty import Fault, FaultEffect, FaultyStore, SimulatedCrash
from holdfast.storage.keys import check_key
from holdfast.storage.lagging import LaggingStore
from holdfast.storage.location import open_store
from holdfast.storage.memory import MemoryStore
from holdfast.storage.metered import Meter, MeteredStore
from holdfast.storage.posix import PosixStore
from holdfast.storage.retry import RetryStore
from holdfast.storage.store import ObjectInfo, ObjectStore, Part, Parts, holds
from holdfast.storage.wrapper import Verb

__all__ = [
    "CappedStore",
    "Fault",
    "FaultEffect",
    "FaultyStore",
    "KeyRefused",
    "LaggingStore",
    "LocationRefused",
    "MemoryStore",
    "Meter",
    "MeteredStore",
    "ObjectExists",
    "ObjectInfo",
    "ObjectLocked",
    "ObjectMissing",
    "ObjectStore",
    "Part",
    "Parts",
    "PosixStore",
    "RangeNotSatisfiable",
    "RetryStore",
    "SimulatedCrash",
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
    "Verb",
    "check_key",
    "holds",
    "open_store",
]
