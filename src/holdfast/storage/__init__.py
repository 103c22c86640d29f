"""Object stores: one contract, several implementations, wrappers around them."""

from holdfast.storage.cached import CachedStore
from holdfast.storage.capped import CappedStore
from holdfast.storage.costs import CostEstimate, CostLine, CountedRequests, estimate_costs
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
from holdfast.storage.findings import Finding, Severity
from holdfast.storage.keys import check_key
from holdfast.storage.lagging import LaggingStore
from holdfast.storage.location import FOLDER, SCHEMES, folder_of, holds_files, open_store, scheme_of
from holdfast.storage.memory import MemoryStore
from holdfast.storage.metered import Meter, MeteredStore
from holdfast.storage.mounts import Mount, find_mount, judge_mount
from holdfast.storage.place import LockMode, StoreCredentials, StoreOptions, StorePlace
from holdfast.storage.posix import PosixStore
from holdfast.storage.prices import PRICE_LISTS, PriceList, find_price_list
from holdfast.storage.retry import RetryStore
from holdfast.storage.self_test import SelfTest, run_self_test
from holdfast.storage.smb_place import is_smb_location, parse_smb_location
from holdfast.storage.store import ObjectInfo, ObjectStore, Part, Parts, holds
from holdfast.storage.throttled import Throttle, ThrottledStore
from holdfast.storage.version import CoveredObject, KeepsVersions, find_versions
from holdfast.storage.wrapper import Verb

__all__ = [
    "CREDENTIAL_NAMES",
    "FOLDER",
    "PRICE_LISTS",
    "SCHEMES",
    "CachedStore",
    "CappedStore",
    "CostEstimate",
    "CostLine",
    "CountedRequests",
    "CoveredObject",
    "CredentialsMissing",
    "CredentialsReference",
    "CredentialsSource",
    "CredentialsUnreadable",
    "Fault",
    "FaultEffect",
    "FaultyStore",
    "Finding",
    "KeepsVersions",
    "KeyRefused",
    "LaggingStore",
    "LocationRefused",
    "LockMode",
    "MemoryStore",
    "Meter",
    "MeteredStore",
    "Mount",
    "ObjectExists",
    "ObjectInfo",
    "ObjectLocked",
    "ObjectMissing",
    "ObjectStore",
    "Part",
    "Parts",
    "PosixStore",
    "PriceList",
    "RangeNotSatisfiable",
    "RetryStore",
    "SelfTest",
    "Severity",
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
    "Throttle",
    "ThrottledStore",
    "Verb",
    "check_key",
    "estimate_costs",
    "find_mount",
    "find_price_list",
    "find_versions",
    "folder_of",
    "holds",
    "holds_files",
    "is_smb_location",
    "judge_mount",
    "open_store",
    "parse_credentials",
    "parse_reference",
    "parse_smb_location",
    "run_self_test",
    "scheme_of",
]
