"""The lock policy: for how many days a repository holds what is new against deletion. It lies in the repository.

So every machine that writes into it keeps to the same policy, and nobody has to remember it. Each change is a new
sealed object with a higher number; the highest counts. Invariant: a policy is in force only after the write flag that
keeps writers away which would not know it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import msgspec

from holdfast.core import ExitStatus, HoldfastError, format_time, from_msgpack, get_log, limits, parse_time
from holdfast.repository.damage import ObjectDamaged
from holdfast.repository.layout import FEATURES_PREFIX, IMMUTABILITY_PREFIX, ObjectKind
from holdfast.repository.lock_terms import LockTerms
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectExists, ObjectMissing

__all__ = ["LockDaysInvalid", "LockPolicy", "let_go", "read_lock_policy", "refresh_terms", "write_lock_policy"]

_FLAG_KEY = f"{FEATURES_PREFIX}write/immutability"

_log = get_log(__name__)


class LockDaysInvalid(HoldfastError):
    """A number of days that nothing can be locked for."""

    code = "repository.lock-days-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."

    def __init__(self, *, days: int) -> None:
        super().__init__(f"restore points cannot be locked for {days} days")
        self.days = days

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Give 1 to {limits.LOCK_DAYS_MAX} days, or 0 to lock nothing new."


@dataclass(frozen=True, slots=True, kw_only=True)
class LockPolicy:
    """What a repository's owner asked for."""

    days: int
    """Days that each new point is held; 0 when nothing new is locked any more."""
    number: int
    set_at: datetime
    let_go: frozenset[str] = frozenset()
    """Key files whose locks are not extended any more, because their holders are to be removed."""

    @property
    def terms(self) -> LockTerms | None:
        """How long new objects are held; None when they are not."""
        return LockTerms(self.days) if self.days else None


class _PolicyRecord(msgspec.Struct, frozen=True, kw_only=True):
    days: int
    set_at: str
    let_go: tuple[str, ...] = ()


def read_lock_policy(vault: Vault) -> LockPolicy | None:
    """Return the policy in force; None when nobody has ever asked for locks.

    Where a record cannot be read, the longest of the others counts. ``ObjectDamaged`` when none can be read.
    """
    policies: list[LockPolicy] = []
    damaged: ObjectDamaged | None = None
    for info in list(vault.names(IMMUTABILITY_PREFIX)):
        try:
            policies.append(_read(vault, info.key))
        except ObjectMissing:
            continue
        except (SealBroken, msgspec.DecodeError, ValueError) as cause:
            damaged = ObjectDamaged(key=info.key, reason=str(cause))
            _log.warning("policy.record-skipped", object=info.key, reason=str(cause))
    if damaged is not None and not policies:
        raise damaged
    if damaged is not None:
        return max(policies, key=lambda each: (each.days, each.number))
    return max(policies, key=lambda each: each.number, default=None)


def write_lock_policy(vault: Vault, *, days: int) -> LockPolicy:
    """Put a policy in force for everything that is stored from now on, and return it. ``LockDaysInvalid``."""
    if not 0 <= days <= limits.LOCK_DAYS_MAX:
        raise LockDaysInvalid(days=days)
    with contextlib.suppress(ObjectExists):  # an earlier policy needed it too
        vault.store.put(_FLAG_KEY, b"")
    return _write_next(vault, days=days, more=frozenset())


def let_go(vault: Vault, keys: Collection[str]) -> None:
    """Extend the locks of these objects no more, because they are to be removed once the present ones end."""
    policy = read_lock_policy(vault)
    if policy is not None and not policy.let_go.issuperset(keys):
        _write_next(vault, days=None, more=frozenset(keys))


def _write_next(vault: Vault, *, days: int | None, more: frozenset[str]) -> LockPolicy:
    """Store the policy that follows the one in force, with other days or with more to let go, and return it."""
    while True:
        # Listed before the policy is read: what another machine writes after that takes the number, and is read then.
        numbers = [_number(info.key) or 0 for info in vault.names(IMMUTABILITY_PREFIX)]
        before = read_lock_policy(vault) or LockPolicy(days=0, number=0, set_at=vault.clock.now())
        policy = LockPolicy(
            days=before.days if days is None else days,
            number=max(numbers, default=0) + 1,
            set_at=vault.clock.now(),
            let_go=before.let_go | more,
        )
        vault.lock_terms = policy.terms
        record = _PolicyRecord(days=policy.days, set_at=format_time(policy.set_at), let_go=tuple(sorted(policy.let_go)))
        key = f"{IMMUTABILITY_PREFIX}{policy.number:08d}"
        try:
            vault.write(key, msgspec.msgpack.encode(record), kind=ObjectKind.IMMUTABILITY)
        except ObjectExists:
            continue
        return policy


def refresh_terms(vault: Vault) -> None:
    """Let the vault lock by the policy that is in force now."""
    policy = read_lock_policy(vault)
    vault.lock_terms = None if policy is None else policy.terms


def _read(vault: Vault, key: str) -> LockPolicy:
    number = _number(key)
    record = from_msgpack(vault.read(key, kind=ObjectKind.IMMUTABILITY), _PolicyRecord)
    if number is None or not 0 <= record.days <= limits.LOCK_DAYS_MAX:
        raise ValueError(f"{record.days} days under the name {key}")
    return LockPolicy(
        days=record.days, number=number, set_at=parse_time(record.set_at), let_go=frozenset(record.let_go)
    )


def _number(key: str) -> int | None:
    digits = key.removeprefix(IMMUTABILITY_PREFIX)
    return int(digits) if len(digits) == 8 and digits.isdecimal() else None
