"""Use cases: one function each; faces translate, this layer decides."""

from holdfast.service.config import (
    KeyMemory,
    LineLimits,
    NameTaken,
    NameUnknown,
    PoolConfig,
    Registry,
    RepositoryConfig,
    RepositoryPlace,
    SecretMissing,
    TrustKind,
    Vault,
)
from holdfast.service.costs import PricesUnknown, RepositoryCosts, estimate_repository_costs
from holdfast.service.disks import restore_disk
from holdfast.service.history import list_runs, list_waiting_runs, show_run
from holdfast.service.immutability import LockDaysUnclear, lock_repository, parse_lock_days, show_protection
from holdfast.service.keys import (
    Drill,
    add_holder,
    change_secret,
    drill,
    list_holders,
    new_recovery_holder,
    remove_holder,
    renew_recovery_key,
    rotate_data_key,
)
from holdfast.service.line_limits import limit_line
from holdfast.service.mirroring import mirror_repository, plan_mirror
from holdfast.service.points import (
    ListedPoints,
    delete_point,
    list_points,
    show_point,
    verify,
)
from holdfast.service.pools import add_pool, connect_pool, list_pools, probe_pool, show_pool
from holdfast.service.recognition import DataKeyExchanged, RepositoryExchanged
from holdfast.service.repositories import (
    CreatedRepository,
    GivenCredentials,
    RepositoryOverview,
    change_credentials,
    connect_repository,
    create_repository,
    list_repositories,
    open_by_name,
    remove_repository,
    show_repository,
)
<<<<<<< Updated upstream
from holdfast.service.scrubbing import DonorUnclear, ImageUnreadable, check_grades, heal, scrub, scrub_status
=======
from holdfast.service.space import collect_garbage, measure_space, plan_collection, plan_deletion
>>>>>>> Stashed changes
from holdfast.service.store_test import examine_location, examine_repository
from holdfast.service.sweeping import PoolForgotten, RemovedPool, clean_pool, explain_cleaning, remove_pool
from holdfast.service.uncovering import NoVersionsKept, Uncovered, UncoverPlan, plan_uncovering, uncover_objects
from holdfast.service.work import (
    BackupRequest,
    SelectionAmbiguous,
    WorkReport,
    cancel_run,
    explain_backup,
    explain_restore,
    resume_run,
    run_backup,
    run_restore,
)
from holdfast.service.workspace import Workspace

__all__ = [
    "BackupRequest",
    "CreatedRepository",
    "DataKeyExchanged",
    "DonorUnclear",
    "Drill",
    "GivenCredentials",
    "ImageUnreadable",
    "KeyMemory",
    "LineLimits",
    "ListedPoints",
    "LockDaysUnclear",
    "NameTaken",
    "NameUnknown",
    "NoVersionsKept",
    "PoolConfig",
    "PoolForgotten",
    "PricesUnknown",
    "Registry",
    "RemovedPool",
    "RepositoryConfig",
    "RepositoryCosts",
    "RepositoryExchanged",
    "RepositoryOverview",
    "RepositoryPlace",
    "SecretMissing",
    "SelectionAmbiguous",
    "TrustKind",
    "UncoverPlan",
    "Uncovered",
    "Vault",
    "WorkReport",
    "Workspace",
    "add_holder",
    "add_pool",
    "cancel_run",
    "change_credentials",
    "change_secret",
    "check_grades",
    "clean_pool",
    "collect_garbage",
    "connect_pool",
    "connect_repository",
    "create_repository",
    "delete_point",
    "drill",
    "estimate_repository_costs",
    "examine_location",
    "examine_repository",
    "explain_backup",
    "explain_cleaning",
    "explain_restore",
    "heal",
    "limit_line",
    "list_holders",
    "list_points",
    "list_pools",
    "list_repositories",
    "list_runs",
    "list_waiting_runs",
    "lock_repository",
    "measure_space",
    "mirror_repository",
    "new_recovery_holder",
    "open_by_name",
    "parse_lock_days",
    "plan_collection",
    "plan_deletion",
    "plan_mirror",
    "plan_uncovering",
    "probe_pool",
    "remove_holder",
    "remove_pool",
    "remove_repository",
    "renew_recovery_key",
    "restore_disk",
    "resume_run",
    "rotate_data_key",
    "run_backup",
    "run_restore",
    "scrub",
    "scrub_status",
    "show_point",
    "show_pool",
    "show_protection",
    "show_repository",
    "show_run",
    "uncover_objects",
    "verify",
]
