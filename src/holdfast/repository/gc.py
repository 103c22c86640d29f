"""Garbage collection: deletes packs that no restore point needs, while backups and other collections may be running.

Dead packs are first condemned in a published list. A writer either sees the list and keeps clear of its packs, or its
lease is seen here and waited for; then the points are looked at again. The argument is in ``docs/formats/leases.md``.
Invariant: a pack is deleted only while the collector's own list condemns it, after a look at the points that was taken
when no writer was left that might use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.core import Cancellation, ExitStatus, HoldfastError, format_bytes
from holdfast.repository.condemned import CondemnedList, list_condemned, write_condemned
from holdfast.repository.gc_index import tidy_indexes
from holdfast.repository.layout import INDEX_PREFIX, PACKS_PREFIX, PackId, pack_key, parse_pack_key
from holdfast.repository.lease import Lease, delete_lease, list_leases
from holdfast.repository.moved import read_moves
from holdfast.repository.point import read_points
from holdfast.repository.safety import Safety
from holdfast.repository.vault import Vault
from holdfast.storage import StoreFull

__all__ = ["CannotTellLivePacks", "DeadPack", "GcPlan", "GcReport", "apply_gc", "plan_gc"]


class CannotTellLivePacks(HoldfastError):
    """A restore point cannot be read, so nobody knows which packs it needs."""

    code = "repository.cannot-tell-live-packs"
    exit_status = ExitStatus.DAMAGED
    effect = "Nothing was deleted: the damaged restore point may still be brought back whole, with all its data."
    advice = "Bring the named object back from a copy of the repository, or delete it from the store; then try again."

    def __init__(self, *, object: str, count: int) -> None:
        super().__init__(f"{count} restore points cannot be read, so their packs are not known; e.g. object {object}")
        self.object, self.count = object, count


@dataclass(frozen=True, slots=True, order=True)
class DeadPack:
    """A pack that no restore point needs."""

    pack: PackId
    length_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GcPlan:
    """What garbage collection would delete, and what it waits for. A value; it changes nothing."""

    dead: tuple[DeadPack, ...]
    kept_packs: int
    kept_bytes: int
    remarks: tuple[str, ...]
    """What is kept although it is dead, and whom deleting will have to wait for; one sentence each."""

    @property
    def bytes(self) -> int:
        """How much space deleting gives back."""
        return sum(each.length_bytes for each in self.dead)

    def explain(self) -> str:
        """Return the plan for people, a few lines."""
        lines = [
            f"delete {len(self.dead)} packs that no restore point needs: {format_bytes(self.bytes)}",
            f"keep {self.kept_packs} packs: {format_bytes(self.kept_bytes)}",
        ]
        return "\n".join([*lines, *self.remarks])


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What garbage collection did."""

    deleted_packs: int
    freed_bytes: int
    waiting_packs: int
    """Condemned, but a running backup might still use them; the next collection deletes them."""
    rescued_packs: int
    """Condemned, but a restore point published meanwhile needs them."""
    waits_for: tuple[str, ...]
    """Whose end is waited for; one sentence each."""


def plan_gc(vault: Vault, *, safety: Safety) -> GcPlan:
    """Return the plan. ``CannotTellLivePacks`` when a restore point is damaged."""
    now = vault.clock.now()
    listed = _list_packs(vault)
    leases = [lease for lease in list_leases(vault) if not lease.is_forgotten(now, safety)]
    held = {pack for lease in leases for pack in lease.packs}
    live = _live_packs(vault)
    dead = sorted(DeadPack(pack, length) for pack, length in listed.items() if pack not in live and pack not in held)
    spared = [length for pack, length in listed.items() if pack not in live and pack in held]
    remarks = [_wait_for(lease) for lease in leases if not lease.has_ended(now, safety)]
    if spared:
        size = format_bytes(sum(spared))
        remarks.append(f"keep {len(spared)} of them ({size}) that a running or resumable backup has stored")
    dead_bytes = sum(each.length_bytes for each in dead)
    return GcPlan(
        dead=tuple(dead),
        kept_packs=len(listed) - len(dead),
        kept_bytes=sum(listed.values()) - dead_bytes,
        remarks=tuple(remarks),
    )


def apply_gc(vault: Vault, plan: GcPlan, *, safety: Safety, cancel: Cancellation) -> GcReport:
    """Condemn what the plan names, delete what is safe to delete now, leave the rest to the next collection."""
    began_s = vault.clock.monotonic_s()
    planned = {each.pack: each.length_bytes for each in plan.dead}
    own = _condemn(vault, planned) if planned else None
    lists = list_condemned(vault)
    # Leases are looked at after the list is durable: a writer that is not seen here sees the list.
    now = vault.clock.now()
    leases = list_leases(vault)
    running = [lease for lease in leases if not lease.has_ended(now, safety)]
    # And points after the leases: what a writer that is gone has published shows.
    live = _live_packs(vault)
    dead = [pack for pack in planned if pack not in live]
    waiting = [pack for pack in dead if not _is_avoided(pack, running, lists)]
    deletable = {pack: planned[pack] for pack in dead if pack not in set(waiting)}
    deleted = _delete_packs(vault, deletable, until_s=began_s + safety.collection_s, cancel=cancel)
    _tidy(vault, leases, lists, own=own, live=live, safety=safety)
    return GcReport(
        deleted_packs=len(deleted),
        freed_bytes=sum(deletable[pack] for pack in deleted),
        waiting_packs=len(dead) - len(deleted),
        rescued_packs=len(planned) - len(dead),
        waits_for=tuple(_wait_for(lease) for lease in running) if waiting else (),
    )


def _condemn(vault: Vault, packs: Iterable[PackId]) -> CondemnedList:
    """Publish a list of these packs; on a full store, after making room by deleting indexes, which can be rebuilt."""
    indexes = sorted(vault.names(INDEX_PREFIX), key=lambda info: info.length_bytes)
    while True:
        try:
            return write_condemned(vault, packs)
        except StoreFull:
            if not indexes:
                raise
            vault.store.delete(indexes.pop().key)


def _is_avoided(pack: PackId, running: Sequence[Lease], lists: Sequence[CondemnedList]) -> bool:
    """Return whether every running writer has seen a list that condemns the pack."""
    keys = [each.key for each in lists if each.packs is not None and pack in each.packs]
    return all(any(lease.has_seen(key) for key in keys) for lease in running)


def _delete_packs(vault: Vault, packs: Mapping[PackId, int], *, until_s: float, cancel: Cancellation) -> list[PackId]:
    """Delete packs for as long as our own list is sure to be respected; return those that are gone."""
    deleted = []
    for pack in sorted(packs):
        cancel.check()
        if vault.clock.monotonic_s() > until_s:
            break
        vault.store.delete(pack_key(pack))
        vault.shelf.forget(pack)
        deleted.append(pack)
    return deleted


def _tidy(
    vault: Vault,
    leases: Sequence[Lease],
    lists: Sequence[CondemnedList],
    *,
    own: CondemnedList | None,
    live: set[PackId],
    safety: Safety,
) -> None:
    """Remove lists, leases and indexes that serve nobody any more."""
    now = vault.clock.now()
    present = set(_list_packs(vault))
    for each in lists:
        is_own_and_done = own is not None and each.key == own.key and present.isdisjoint((each.packs or set()) - live)
        is_spent = each.packs is not None and present.isdisjoint(each.packs)
        if is_own_and_done or is_spent or each.is_abandoned(now, safety):
            vault.store.delete(each.key)
    for lease in leases:
        if lease.is_forgotten(now, safety):
            delete_lease(vault, lease.id)
    tidy_indexes(vault, live=live, present=present)


def _live_packs(vault: Vault) -> set[PackId]:
    """Return every pack that a restore point needs, through moves too."""
    listing = read_points(vault)
    if listing.damaged:
        raise CannotTellLivePacks(object=listing.damaged[0].object, count=len(listing.damaged))
    live = {pack for point in listing.points for pack, _ in point.packs()}
    return live | read_moves(vault).live_targets(live)


def _list_packs(vault: Vault) -> dict[PackId, int]:
    packs = {}
    for info in vault.names(PACKS_PREFIX):
        pack = parse_pack_key(info.key)
        if pack is not None:
            packs[pack] = info.length_bytes
    return packs


def _wait_for(lease: Lease) -> str:
    if lease.record is None:
        return f"wait for lease {lease.id}, which cannot be read; delete leases/{lease.id} when no backup is running"
    return f"wait for run {lease.record.run} on {lease.record.owner}, whose lease ends at {lease.record.ends_at}"
