"""References that nobody will use again: found by the ledger, told with the reason, removed when a person says so.

A reference costs at most a full read when it is missing, but the last snapshot of a VM that was destroyed by accident
may be what somebody looks for at night. Invariant: so nothing here is removed without being asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from holdfast.model import PoolUuid, RepositoryId, VmUuid
from holdfast.runs import Ledger, LedgerLine, LedgerState
from holdfast.upkeep.sweep import describe_line

__all__ = ["CleaningPlan", "DroppedReference", "plan_cleaning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedReference:
    """A kept line that would be removed, and why."""

    line: LedgerLine
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningPlan:
    """Which references would go, and how many stay."""

    dropped: tuple[DroppedReference, ...]
    staying: int

    @property
    def lines(self) -> tuple[LedgerLine, ...]:
        """The lines that would be removed."""
        return tuple(each.line for each in self.dropped)

    def explain(self) -> str:
        """Return the plan for people, a line per object."""
        told = [
            f"remove {describe_line(each.line)} of VM {each.line.details.get('vm_name', '')!r}: {each.reason}"
            for each in self.dropped
        ]
        return "\n".join([*told, f"{self.staying} references stay"])


def plan_cleaning(
    ledger: Ledger,
    *,
    pool: PoolUuid,
    known_repositories: Collection[RepositoryId],
    vms: Collection[VmUuid],
    everything: bool,
) -> CleaningPlan:
    """Return what can go: references into repositories that are not known here, and of VMs that the pool has no more.

    With ``everything`` all of them go; the next backup of each VM then reads it in full.
    """
    kept = [line for line in ledger.lines(pool=pool, states=(LedgerState.KEPT,)) if "repository" in line.details]
    dropped = [
        DroppedReference(line=line, reason=reason)
        for line in kept
        if (reason := _why(line, known_repositories=known_repositories, vms=vms, everything=everything))
    ]
    return CleaningPlan(dropped=tuple(dropped), staying=len(kept) - len(dropped))


def _why(
    line: LedgerLine, *, known_repositories: Collection[str], vms: Collection[str], everything: bool
) -> str | None:
    if line.details.get("repository") not in known_repositories:
        return "its repository is not known here"
    if line.details.get("vm") not in vms:
        return "its VM is not on the pool any more"
    return "asked for" if everything else None
