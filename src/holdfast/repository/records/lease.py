"""Leases: who writes into a repository now, and which packs an interrupted writer left.

A lease is a series of sealed objects ``leases/<id>/<number>``; the highest number counts. Each names the run, when
the lease ends, every pack id the writer may have used, and the lists and plans of collectors it has seen. Invariant: a
pack is stored only after a lease that announces it is durable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from holdfast.core import format_time, from_msgpack, parse_time
from holdfast.model import RunId
from holdfast.repository.damage import ObjectDamaged
from holdfast.repository.layout import LEASES_PREFIX, ObjectKind, PackId
from holdfast.repository.records.elapsed import Elapsed
from holdfast.repository.safety import Safety
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = [
    "Lease",
    "LeaseRecord",
    "delete_lease",
    "lease_key",
    "lease_times",
    "list_leases",
    "pack_ids",
    "split_pack_ids",
    "write_lease",
]

_READ_ATTEMPTS_MAX = 8
"""A lease may be renewed, which removes the object that was listed, this often while we read it."""


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease object says. Unknown fields are skipped when read."""

    run: str
    owner: str
    began_at: str
    ends_at: str
    packs: bytes
    """Every pack that the writer announced or took over, 16 bytes each."""
    seen: tuple[str, ...] | None = None
    """The condemned lists and plans of holes that the writer keeps clear of, and the moved records it knows; None until
    it has looked."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was found. ``record`` is None when it cannot be read; then nobody knows when it ends."""

    id: str
    number: int
    record: LeaseRecord | None

    @property
    def run(self) -> RunId | None:
        """The run that writes or wrote."""
        return None if self.record is None else RunId(self.record.run)

    @property
    def packs(self) -> tuple[PackId, ...]:
        """Every pack that the writer may have stored."""
        return () if self.record is None else split_pack_ids(self.record.packs)

    @property
    def ends_at(self) -> datetime | None:
        """When the lease ends by its writer's clock; None when it cannot be read."""
        return None if self.record is None else parse_time(self.record.ends_at)

    def seems_ended(self, now: datetime, safety: Safety) -> bool:
        """Return whether its writer can no longer publish anything, if this machine's clock is right."""
        return self._is_past(now, margin_s=safety.clock_skew_s)

    def seems_forgotten(self, now: datetime, safety: Safety) -> bool:
        """Return whether nobody will resume its run any more, if this machine's clock is right."""
        return self._is_past(now, margin_s=safety.clock_skew_s + safety.resume_grace_s)

    def has_ended(self, elapsed: Elapsed, safety: Safety) -> bool:
        """Return whether its writer can no longer publish anything."""
        return self._is_over(elapsed, safety, margin_s=safety.clock_skew_s)

    def is_forgotten(self, elapsed: Elapsed, safety: Safety) -> bool:
        """Return whether nobody will resume its run any more."""
        return self._is_over(elapsed, safety, margin_s=safety.clock_skew_s + safety.resume_grace_s)

    def _is_past(self, now: datetime, *, margin_s: float) -> bool:
        return self.ends_at is not None and (now - self.ends_at).total_seconds() > margin_s

    def _is_over(self, elapsed: Elapsed, safety: Safety, *, margin_s: float) -> bool:
        if self.ends_at is None:
            return False
        lasts, margin = timedelta(seconds=safety.lease_s), timedelta(seconds=margin_s)
        return elapsed.is_over(self.ends_at, key=lease_key(self.id, self.number), lasts=lasts, margin=margin)

    def has_seen(self, name: str) -> bool:
        """Return whether its writer keeps clear of a condemned list or a plan of holes, or knows a moved record."""
        return self.record is not None and self.record.seen is not None and name in self.record.seen


def lease_key(id: str, number: int) -> str:
    """Return the name of one object of a lease."""
    return f"{LEASES_PREFIX}{id}/{number:08d}"


def list_leases(vault: Vault) -> list[Lease]:
    """Return all leases there are, the newest object of each."""
    newest: dict[str, int] = {}
    for info in vault.names(LEASES_PREFIX):
        id, _, number = info.key.removeprefix(LEASES_PREFIX).partition("/")
        if number.isdecimal():
            newest[id] = max(int(number), newest.get(id, 0))
    found = (_read_lease(vault, id, number) for id, number in newest.items())
    return [lease for lease in found if lease is not None]


def delete_lease(vault: Vault, id: str, *, last_number: int | None = None) -> None:
    """Remove every object of a lease, oldest first, so that the newest word on its packs goes last.

    With ``last_number`` only if it was not renewed since that object: then its writer is alive, and goes on.
    """
    keys = [info.key for info in vault.names(f"{LEASES_PREFIX}{id}/")]
    if last_number is not None and any(key > lease_key(id, last_number) for key in keys):
        return
    for key in keys:
        vault.store.delete(key)


def write_lease(vault: Vault, id: str, number: int, record: LeaseRecord) -> None:
    """Store the next object of a lease."""
    vault.write(lease_key(id, number), msgspec.msgpack.encode(record), kind=ObjectKind.LEASE)


def pack_ids(packs: Iterable[PackId]) -> bytes:
    """Return pack ids as they are stored."""
    return b"".join(packs)


def split_pack_ids(stored: bytes) -> tuple[PackId, ...]:
    """Return the pack ids that ``pack_ids`` wrote."""
    return tuple(PackId(stored[at : at + 16]) for at in range(0, len(stored), 16))


def lease_times(vault: Vault, safety: Safety) -> tuple[str, str]:
    """Return now, and when a lease that is renewed now ends, as text."""
    now = vault.clock.now()
    return format_time(now), format_time(datetime.fromtimestamp(now.timestamp() + safety.lease_s, tz=now.tzinfo))


def _read_lease(vault: Vault, id: str, number: int) -> Lease | None:
    """Return the lease; None when it ended while we looked."""
    for _ in range(_READ_ATTEMPTS_MAX):
        key = lease_key(id, number)
        try:
            record = from_msgpack(vault.read(key, kind=ObjectKind.LEASE), LeaseRecord)
            parse_time(record.ends_at)
            return Lease(id, number, record)
        except (SealBroken, msgspec.DecodeError, ValueError):
            return Lease(id, number, None)
        except ObjectMissing:
            numbers = [int(info.key.rpartition("/")[2]) for info in vault.names(f"{LEASES_PREFIX}{id}/")]
            if not numbers:
                return None
            number = max(numbers)
    raise ObjectDamaged(key=lease_key(id, number), reason="it is listed but cannot be read")
