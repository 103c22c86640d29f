"""Object stores: one contract, several implementations, wrappers around them."""

from holdfast.storage.capped import CappedStore
from holdfast.storage.credentials import (
    CREDENTIAL_NAMES,
    CredentialsMissing,
    CredentialsReference,
    CredentialsSource,
    CredentialsUnreadable,
    parse_credentials,
    parse_reference,
)
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
from holdfast.storage.location import SCHEMES, open_store, scheme_of
from holdfast.storage.memory import MemoryStore
from holdfast.storage.metered import Meter, MeteredStore
from holdfast.storage.place import LockMode, StoreCredentials, StoreOptions, StorePlace
from holdfast.storage.posix import PosixStore
from holdfast.storage.retry import RetryStore
from holdfast.storage.store import ObjectInfo, ObjectStore, Part, Parts, holds
from holdfast.storage.wrapper import Verb

__all__ = [
    "CREDENTIAL_NAMES",
    "SCHEMES",
    "CappedStore",
    "CredentialsMissing",
    "CredentialsReference",
    "CredentialsSource",
    "CredentialsUnreadable",
    "Fault",
    "FaultEffect",
    "FaultyStore",
    "KeyRefused",
    "LaggingStore",
    "LocationRefused",
    "LockMode",
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
    "StoreCredentials",
    "StoreEmpty",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreMissing",
    "StoreNotAFolder",
    "StoreNotReadable",
    "StoreNotWritable",
    "StoreOptions",
    "StorePlace",
    "StoreUnreachable",
    "StoreUnsuitable",
    "Verb",
    "check_key",
    "holds",
    "open_store",
    "parse_credentials",
    "parse_reference",
    "scheme_of",
]
