"""Taking care of what is stored: verification, scrub, healing, and since when the data of each point is checked.

Invariant: what is found damaged is in quarantine before anything else is done about it, and nothing that is still good
is ever deleted or rewritten here.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from holdfast.core import Cancellation, Cancelled, HoldfastError, Progress, format_minute
from holdfast.model import PointId, RunId
from holdfast.repository.care.scrub import ScrubBudget, ScrubPlan, ScrubStatus, plan_scrub, run_scrub
from holdfast.repository.care.verify import VerifyReport, verify
from holdfast.repository.crew import in_order
from holdfast.repository.damage import MISSING, PointDamaged
from holdfast.repository.layout import PackId
from holdfast.repository.points.point import RestorePoint, each_point
from holdfast.repository.points.point_tables import read_table
from holdfast.repository.reading.damage_report import DamageFound, DamageReport, Reasons, report_damage
from holdfast.repository.records.moved import read_moves
from holdfast.repository.records.proofs import read_proofs
from holdfast.repository.records.quarantine import BrokenSlots, read_quarantine, settle_quarantine
from holdfast.repository.vault import Vault
from holdfast.repository.writing.heal import Donor, HealReport, heal_from_donor, heal_from_known
from holdfast.repository.writing.run_writer import RunWriter
from holdfast.storage import StoreError

__all__ = ["Caretaker", "CheckGrade", "HealingDone", "ScrubReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubReport:
    """What a scrub did, what is known since, and what is damaged."""

    packs: int
    read_bytes: int
    is_round_complete: bool
    """Whether everything that the restore points need was read by this scrub."""
    status: ScrubStatus
    damage: tuple[DamageFound, ...]
    damaged_points: tuple[PointDamaged, ...]
    healed: HealReport | None
    """What was healed; None when there was nothing to heal."""
    not_noted: str = ""
    """Why the damage, or what was read, could not be noted in the repository; empty when it was."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is known that a restore point has lost."""
        return not self.damaged_points and not any(each.hits for each in self.damage)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealingDone:
    """What a healing did, and what is damaged still."""

    healed: HealReport
    damage: tuple[DamageFound, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no restore point is hit any more."""
        return not any(each.hits for each in self.damage)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckGrade:
    """Since when the data of a restore point is checked."""

    checked_at: datetime | None
    """When that of its packs was read that was not read for the longest time; None unless all were, and none is
    damaged."""
    packs: int
    unread_packs: int
    """Those of its packs that were never read since they were stored."""
    damaged_packs: int
    """Those with damage, of a point that the damage hits; 0 for all others, whichever packs they share."""

    def explain(self) -> str:
        """Return the grade in words."""
        if self.damaged_packs:
            return f"in doubt: {self.damaged_packs} of {self.packs} packs damaged"
        if self.checked_at is None:
            return f"not checked: {self.unread_packs} of {self.packs} packs not read yet"
        return f"data checked {format_minute(self.checked_at)}"


class Caretaker:
    """Verifies, scrubs and heals one repository. Thread-safe."""

    def __init__(
        self,
        vault: Vault,
        *,
        reading: Vault,
        begin_run: Callable[[RunId, Cancellation], RunWriter],
        workers: int,
    ) -> None:
        """``reading`` reads past damaged trailers."""
        self._vault = vault
        self._reading = reading
        self._begin_run = begin_run
        self._workers = workers

    def verify(
        self, points: Sequence[RestorePoint] | None, *, progress: Progress, cancel: Cancellation
    ) -> VerifyReport:
        """Return what a check of every map and every byte found; see ``Repository.verify``."""
        return verify(
            self._vault,
            points,
            reading=self._reading,
            heal=lambda: self._try_heal(cancel),
            workers=self._workers,
            progress=progress,
            cancel=cancel,
        )

    def scrub(self, budget: ScrubBudget, *, progress: Progress, cancel: Cancellation) -> ScrubReport:
        """Read packs, those first that were not read for the longest time; heal what can be healed; tell the rest.

        Stopped or killed at any moment, the next scrub continues. Raises no damage.
        """
        plan = plan_scrub(self._vault, workers=self._workers, cancel=cancel)
        passed = run_scrub(self._vault, plan, budget=budget, workers=self._workers, progress=progress, cancel=cancel)
        reasons = Reasons(
            packs={**dict.fromkeys(plan.missing, MISSING), **passed.pack_reasons}, slots=passed.slot_reasons
        )
        report = self._report(plan, reasons, unnoted=passed.unnoted)
        not_noted, healed = passed.not_noted, None
        try:
            self._settle(plan, report)
            healed = self._try_heal(cancel) if any(each.hits for each in report.found) else None
            if healed is not None and healed.healed_slots:
                report = self._judge(plan, reasons)
        except StoreError as error:
            if not report.found:
                raise
            not_noted = not_noted or str(error)
        return ScrubReport(
            packs=passed.packs,
            read_bytes=passed.read_bytes,
            is_round_complete=passed.is_round_complete,
            status=self._refreshed(plan),
            damage=report.found,
            damaged_points=plan.damaged_points,
            healed=healed,
            not_noted=not_noted,
        )

    def scrub_status(self, *, cancel: Cancellation) -> ScrubReport:
        """Return what is known without reading any data: nothing is checked or changed."""
        plan = plan_scrub(self._vault, workers=self._workers, cancel=cancel)
        report = self._report(plan, Reasons(packs=dict.fromkeys(plan.missing, MISSING)))
        return ScrubReport(
            packs=0,
            read_bytes=0,
            is_round_complete=False,
            status=plan.status(self._vault.clock.now()),
            damage=report.found,
            damaged_points=plan.damaged_points,
            healed=None,
        )

    def heal(self, donor: Donor | None, *, progress: Progress, cancel: Cancellation) -> HealingDone:
        """Heal what is known to be damaged: from what the repository has, then from a donor if there is one."""
        plan = plan_scrub(self._vault, workers=self._workers, cancel=cancel)
        reasons = Reasons(packs=dict.fromkeys(plan.missing, MISSING))
        self._judge(plan, reasons)
        with self._begin_run(self._run_id(), cancel) as writer:
            healed, moves = heal_from_known(writer.session)
            if donor is not None:
                healed += heal_from_donor(
                    writer.session,
                    self._reading,
                    lambda: each_point(self._vault),
                    donor,
                    moves=moves,
                    progress=progress,
                )
        return HealingDone(healed=healed, damage=self._judge(plan, reasons).found)

    def grades(self, keys: Iterable[str]) -> dict[PointId, CheckGrade]:
        """Return since when the data of restore points is checked; ``keys`` name their objects. Damaged ones lack."""
        moves, proofs, quarantine = read_moves(self._vault), read_proofs(self._vault), read_quarantine(self._vault)
        harmful, spared = quarantine.harmful, quarantine.harmless & quarantine.packs
        hit = self.known_hits()

        def grade(key: str) -> tuple[PointId, CheckGrade] | None:
            with contextlib.suppress(PointDamaged):
                tables = read_table(self._vault, key)
                if tables is not None:
                    named = {PackId(pack) for disk in tables.disks for pack in disk.rows["pack"].tolist()}
                    packs = sorted(moves.holders_of(named) - spared)
                    checked_s = proofs.checked_s(np.array(packs, dtype="V16"))
                    damaged = harmful.intersection(packs) if tables.id in hit else ()
                    return PointId(tables.id), _grade(checked_s, damaged_packs=len(damaged))
            return None

        found = in_order(grade, keys, workers=self._workers, ahead=2 * self._workers)
        return dict(each for each in found if each is not None)

    def known_hits(self) -> frozenset[PointId]:
        """Return the points that are hit by damage that a check has found, without looking for more."""
        known = read_quarantine(self._vault)
        if not known.harmful:
            return frozenset()
        report = report_damage(
            self._reading, each_point(self._vault), known.broken, Reasons(), moves=read_moves(self._vault)
        )
        return frozenset(hit.point for each in report.found for hit in each.hits)

    def _judge(self, plan: ScrubPlan, reasons: Reasons) -> DamageReport:
        """Return whom all known damage hits, and make the quarantine say it."""
        report = self._report(plan, reasons)
        self._settle(plan, report)
        return report

    def _settle(self, plan: ScrubPlan, report: DamageReport) -> None:
        known = read_quarantine(self._vault)
        gone = np.array(sorted(known.broken), dtype="V16")
        gone = gone[~np.isin(gone, plan.present)]
        settle_quarantine(
            self._vault,
            checked=frozenset(),
            broken={**dict.fromkeys(plan.missing), **report.dependents},
            harmless=report.harmless,
            forgotten={PackId(pack) for pack in gone.tolist()} - set(plan.missing),
        )

    def _report(
        self, plan: ScrubPlan, reasons: Reasons, *, unnoted: BrokenSlots = MappingProxyType({})
    ) -> DamageReport:
        known = read_quarantine(self._vault)
        broken: dict[PackId, frozenset[int] | None] = {**known.broken, **unnoted, **dict.fromkeys(plan.missing)}
        points = each_point(self._vault)
        return report_damage(self._reading, points, broken, reasons, moves=read_moves(self._vault))

    def _refreshed(self, plan: ScrubPlan) -> ScrubStatus:
        checked_s = read_proofs(self._vault).checked_s(plan.packs)
        return dataclasses.replace(plan, checked_s=checked_s).status(self._vault.clock.now())

    def _try_heal(self, cancel: Cancellation) -> HealReport | None:
        """Heal from what the repository has; None when there is nothing to heal. What prevents it is in the report."""
        if not read_quarantine(self._vault).harmful:
            return None
        try:
            with self._begin_run(self._run_id(), cancel) as writer:
                return heal_from_known(writer.session)[0]
        except Cancelled:
            raise
        except HoldfastError as prevented:
            # What was found is worth telling even if nothing can be done about it here.
            return HealReport(failure=str(prevented))

    def _run_id(self) -> RunId:
        return RunId(f"heal-{self._vault.entropy.token_bytes(6).hex()}")


def _grade(checked_s: npt.NDArray[np.int64], *, damaged_packs: int) -> CheckGrade:
    unread = int((checked_s == 0).sum())
    is_checked = len(checked_s) > 0 and not unread and not damaged_packs
    return CheckGrade(
        checked_at=datetime.fromtimestamp(int(checked_s.min()), tz=UTC) if is_checked else None,
        packs=len(checked_s),
        unread_packs=unread,
        damaged_packs=damaged_packs,
    )
