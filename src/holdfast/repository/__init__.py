"""The repository engine: restore points of VMs, deduplicated, compressed and encrypted, on any object store."""

from holdfast.repository.care import CheckGrade, HealingDone, ScrubReport
from holdfast.repository.catalogue import DiskSummary, PointSummary, SummaryListing, summary_of
from holdfast.repository.config import Compression, ConfigDamaged, NeedsNewerHoldfast, NotARepository
from holdfast.repository.damage import Damage, MapDamaged, ObjectDamaged, PackDamaged, PackMissing, PointDamaged
from holdfast.repository.damage_report import DamageFound
from holdfast.repository.deletion import DeletionPlan
from holdfast.repository.disk_writer import RepositoryDiskWriter
from holdfast.repository.donors import ImageDonor, RepositoryDonor
from holdfast.repository.gc_census import CannotTellLivePacks
from holdfast.repository.gc_plan import DeadPack, FrameWay, GcPlan, GcReport, Wait, WaitKind
from holdfast.repository.gc_settings import GcSettings
from holdfast.repository.heal import Donor, HealReport
from holdfast.repository.hits import HitDisk, Witness
from holdfast.repository.holders import HolderHeld, HolderNotProven
from holdfast.repository.immutability import LockDaysInvalid, LockPolicy
from holdfast.repository.key_desk import KeyDesk
from holdfast.repository.keys import (
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
from holdfast.repository.lease_keeper import LeaseLost
from holdfast.repository.missing import MissingExtent, MissingLog
from holdfast.repository.pack_table import PackTable, PackUse
from holdfast.repository.point import PointAmbiguous, PointDisk, PointUnknown, RestorePoint
from holdfast.repository.protection import HeldPoint, LockingReport, Protection, ProtectionReport, Verdict
from holdfast.repository.repository import (
    PlaceNotEmpty,
    Repository,
    RepositoryExists,
    create_repository,
    open_repository,
)
from holdfast.repository.rotation import HolderUndecided, RotatedMeanwhile, Rotation, RotationUseless
from holdfast.repository.run_writer import DiskNoLongerStored, ReferenceTooLarge, RunWriter
from holdfast.repository.safety import SAFETY, Safety
from holdfast.repository.scrub import ScrubBudget, ScrubStatus
from holdfast.repository.sealing import EpochLost, KeyOutdated
from holdfast.repository.statistics import PointSpace, SpaceReport, VmSpace
from holdfast.repository.stored_disk import NodeAddress, StoredDisk, StoredDiskUnreadable
from holdfast.repository.usage import Usage, UsageOf
from holdfast.repository.verify import VerifyReport
from holdfast.repository.whole_reader import WholeReader

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
