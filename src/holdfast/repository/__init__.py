"""The repository engine: restore points of VMs, deduplicated, compressed and encrypted, on any object store."""

from holdfast.repository.care.care import CheckGrade, HealingDone, ScrubReport
from holdfast.repository.care.scrub import ScrubBudget, ScrubStatus
from holdfast.repository.care.verify import VerifyReport
from holdfast.repository.config import Compression, ConfigDamaged, NeedsNewerHoldfast, NotARepository
from holdfast.repository.damage import Damage, MapDamaged, ObjectDamaged, PackDamaged, PackMissing, PointDamaged
from holdfast.repository.donors import ImageDonor, RepositoryDonor
from holdfast.repository.keys.holders import HolderHeld, HolderNotProven
from holdfast.repository.keys.key_desk import KeyDesk
from holdfast.repository.keys.keys import (
    HolderExists,
    HolderFacts,
    HolderRefused,
    HolderUnknown,
    IdentityHolder,
    IdentityUnlock,
    LastHolder,
    NewHolder,
    OpenHolder,
    OpenUnlock,
    PassphraseHolder,
    PassphraseUnlock,
    RecoveryKey,
    Unlock,
    WrongKey,
    new_recovery_key,
    public_key_of,
)
from holdfast.repository.keys.rotation import HolderUndecided, RotatedMeanwhile, Rotation, RotationUseless
from holdfast.repository.packs.pack_table import PackTable, PackUse
from holdfast.repository.packs.stored_disk import NodeAddress, StoredDisk, StoredDiskUnreadable
from holdfast.repository.points.catalogue import DiskSummary, PointSummary, SummaryListing, summary_of
from holdfast.repository.points.point import PointAmbiguous, PointDisk, PointUnknown, RestorePoint
from holdfast.repository.reading.damage_report import DamageFound
from holdfast.repository.reading.hits import HitDisk, Witness
from holdfast.repository.reading.missing import MissingExtent, MissingLog
from holdfast.repository.reading.whole_reader import WholeReader
from holdfast.repository.records.immutability import LockDaysInvalid, LockPolicy
from holdfast.repository.repository import (
    PlaceNotEmpty,
    Repository,
    RepositoryExists,
    create_repository,
    open_repository,
)
from holdfast.repository.safety import SAFETY, Safety
from holdfast.repository.sealing import EpochLost, KeyOutdated
from holdfast.repository.space.deletion import DeletionPlan
from holdfast.repository.space.gc_census import CannotTellLivePacks
from holdfast.repository.space.gc_plan import DeadPack, FrameWay, GcPlan, GcReport, Wait, WaitKind
from holdfast.repository.space.gc_settings import GcSettings
from holdfast.repository.space.statistics import PointSpace, SpaceReport, VmSpace
from holdfast.repository.space.usage import Usage, UsageOf
from holdfast.repository.writing.disk_writer import RepositoryDiskWriter
from holdfast.repository.writing.heal import Donor, HealReport
from holdfast.repository.writing.lease_keeper import LeaseLost
from holdfast.repository.writing.protection import HeldPoint, LockingReport, Protection, ProtectionReport, Verdict
from holdfast.repository.writing.run_writer import DiskNoLongerStored, ReferenceTooLarge, RunWriter

__all__ = [
    "SAFETY",
    "CannotTellLivePacks",
    "CheckGrade",
    "Compression",
    "ConfigDamaged",
    "Damage",
    "DamageFound",
    "DeadPack",
    "DeletionPlan",
    "DiskNoLongerStored",
    "DiskSummary",
    "Donor",
    "EpochLost",
    "FrameWay",
    "GcPlan",
    "GcReport",
    "GcSettings",
    "HealReport",
    "HealingDone",
    "HeldPoint",
    "HitDisk",
    "HolderExists",
    "HolderFacts",
    "HolderHeld",
    "HolderNotProven",
    "HolderRefused",
    "HolderUndecided",
    "HolderUnknown",
    "IdentityHolder",
    "IdentityUnlock",
    "ImageDonor",
    "KeyDesk",
    "KeyOutdated",
    "LastHolder",
    "LeaseLost",
    "LockDaysInvalid",
    "LockPolicy",
    "LockingReport",
    "MapDamaged",
    "MissingExtent",
    "MissingLog",
    "NeedsNewerHoldfast",
    "NewHolder",
    "NodeAddress",
    "NotARepository",
    "ObjectDamaged",
    "OpenHolder",
    "OpenUnlock",
    "PackDamaged",
    "PackMissing",
    "PackTable",
    "PackUse",
    "PassphraseHolder",
    "PassphraseUnlock",
    "PlaceNotEmpty",
    "PointAmbiguous",
    "PointDamaged",
    "PointDisk",
    "PointSpace",
    "PointSummary",
    "PointUnknown",
    "Protection",
    "ProtectionReport",
    "RecoveryKey",
    "ReferenceTooLarge",
    "Repository",
    "RepositoryDiskWriter",
    "RepositoryDonor",
    "RepositoryExists",
    "RestorePoint",
    "RotatedMeanwhile",
    "Rotation",
    "RotationUseless",
    "RunWriter",
    "Safety",
    "ScrubBudget",
    "ScrubReport",
    "ScrubStatus",
    "SpaceReport",
    "StoredDisk",
    "StoredDiskUnreadable",
    "SummaryListing",
    "Unlock",
    "Usage",
    "UsageOf",
    "Verdict",
    "VerifyReport",
    "VmSpace",
    "Wait",
    "WaitKind",
    "WholeReader",
    "Witness",
    "WrongKey",
    "create_repository",
    "new_recovery_key",
    "open_repository",
    "public_key_of",
    "summary_of",
]
