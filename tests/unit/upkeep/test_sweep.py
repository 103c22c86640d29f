"""The sweep removes what the ledger names, of runs that are over, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast.core import HoldfastError, limits
from holdfast.model import RUN_TAG, DiskUuid, JsonObject, OwnedKind, RunId
from holdfast.runs import LedgerId, LedgerState
from holdfast.upkeep import MarkNotUnique, NotASnapshot, lines_to_sweep, remove_line, sweep_ledger
from holdfast.xapi import TaggedKind
from tests.support.flows import NOW, POOL, MemoryLedger, MemoryPool, blocks, vm

RUN = RunId("r-1")
DETAILS: JsonObject = {"vm": "vm-web", "vm_name": "web", "repository": "one"}


class _Busy(HoldfastError):
    code = "test.busy"


@pytest.fixture
def pool() -> MemoryPool:
    made = MemoryPool()
    made.add_vm("web", blocks(1), blocks(2))
    return made


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


def _intend(ledger: MemoryLedger, kind: OwnedKind, name: str, *, external_id: str | None = None) -> LedgerId:
    line = ledger.intend(run=RUN, pool=POOL, kind=kind.value, name=name, details=DETAILS)
    if external_id is not None:
        ledger.made(line, external_id=external_id)
    return line


def _sweep(pool: MemoryPool, ledger: MemoryLedger, *, final: bool = True) -> tuple[list[str], list[str]]:
    lines = lines_to_sweep(ledger, pool=POOL, is_final=lambda _: final, now=NOW)
    report = sweep_ledger(pool.client, ledger, lines)
    return list(report.removed), [type(each.error).__name__ for each in report.left]


def _snapshot(pool: MemoryPool, name: str) -> tuple[str, list[str]]:
    made = pool.snapshot_vm(pool.vms["vm-web"].uuid, name_label=name)
    return made.vm, list(made.disks.values())


def test_a_snapshot_whose_uuid_was_never_learned_goes_with_its_disks(pool: MemoryPool, ledger: MemoryLedger) -> None:
    _intend(ledger, OwnedKind.VM_SNAPSHOT, "[holdfast r-1 aa] web")
    _snapshot(pool, "[holdfast r-1 aa] web")
    removed, left = _sweep(pool, ledger)
    assert (len(removed), left) == (1, [])
    assert list(pool.vms) == ["vm-web"]
    assert list(pool.disks) == ["web-disk-0", "web-disk-1"]
    assert ledger.open_lines() == []


def test_a_crash_between_the_snapshot_and_its_disks_leaves_lines_that_lead_to_them(
    pool: MemoryPool, ledger: MemoryLedger
) -> None:
    _intend(ledger, OwnedKind.VM_SNAPSHOT, "s")
    _snapshot(pool, "s")
    pool.fail("destroy_disk", _Busy("attached"))
    _, left = _sweep(pool, ledger)
    assert left == ["_Busy"]
    assert list(pool.vms) == ["vm-web"]
    assert len(ledger.open_lines()) == 3
    assert _sweep(pool, ledger)[1] == []
    assert list(pool.disks) == ["web-disk-0", "web-disk-1"]


def test_a_renamed_snapshot_is_still_known_by_its_uuid(pool: MemoryPool, ledger: MemoryLedger) -> None:
    snapshot, _ = _snapshot(pool, "s")
    _intend(ledger, OwnedKind.VM_SNAPSHOT, "s", external_id=snapshot)
    pool.vms[snapshot] = replace(pool.vms[snapshot], name="renamed by somebody")
    _sweep(pool, ledger)
    assert snapshot not in pool.vms


def test_kept_references_and_what_others_made_stay(pool: MemoryPool, ledger: MemoryLedger) -> None:
    snapshot, disks = _snapshot(pool, "ours")
    others, others_disks = _snapshot(pool, "an admin's own")
    _intend(ledger, OwnedKind.VM_SNAPSHOT, "ours", external_id=snapshot)
    for disk in disks:
        ledger.keep(_intend(ledger, OwnedKind.DISK_SNAPSHOT, disk, external_id=disk), why="reference")
    _sweep(pool, ledger)
    assert snapshot not in pool.vms
    assert others in pool.vms
    assert {*disks, *others_disks} <= set(pool.disks)


def test_a_run_that_is_not_over_is_not_touched(pool: MemoryPool, ledger: MemoryLedger) -> None:
    snapshot, _ = _snapshot(pool, "s")
    _intend(ledger, OwnedKind.VM_SNAPSHOT, "s", external_id=snapshot)
    assert _sweep(pool, ledger, final=False) == ([], [])
    assert snapshot in pool.vms


def test_a_run_that_begins_during_the_look_keeps_its_snapshot(pool: MemoryPool, ledger: MemoryLedger) -> None:
    """The lines are read before it is asked which runs are over; a line written later is not among them."""
    _intend(ledger, OwnedKind.VM_SNAPSHOT, "old")
    asked: list[RunId] = []

    def is_final(run: RunId) -> bool:
        asked.append(run)
        late = ledger.intend(run=RunId("r-2"), pool=POOL, kind="vm-snapshot", name="new", details=DETAILS)
        ledger.made(late, external_id="s-2")
        return True

    lines = lines_to_sweep(ledger, pool=POOL, is_final=is_final, now=NOW)
    assert [line.run_id for line in lines] == asked == [RUN]


def test_what_a_dead_call_makes_later_is_looked_for_as_long_as_the_pool_may_make_it(
    pool: MemoryPool, ledger: MemoryLedger
) -> None:
    never_seen = _intend(ledger, OwnedKind.VM_SNAPSHOT, "late")
    _sweep(pool, ledger)
    assert ledger.get(never_seen).state is LedgerState.GONE
    _snapshot(pool, "late")
    _sweep(pool, ledger)
    assert list(pool.vms) == ["vm-web"]
    assert list(pool.disks) == ["web-disk-0", "web-disk-1"]
    later = NOW + timedelta(seconds=limits.POOL_TASK_LIFE_S + 1)
    assert lines_to_sweep(ledger, pool=POOL, is_final=lambda _: True, now=later) == []


def test_an_object_known_by_its_uuid_goes_even_if_a_copy_has_its_mark(pool: MemoryPool, ledger: MemoryLedger) -> None:
    _intend(ledger, OwnedKind.DISK, "mark", external_id="ours")
    for uuid in ("ours", "an admin's copy"):
        pool.add_disk(uuid, blocks(1))
        pool.tag(TaggedKind.DISK, uuid, RUN_TAG, "mark")
    _sweep(pool, ledger)
    assert "ours" not in pool.disks
    assert "an admin's copy" in pool.disks


@pytest.mark.parametrize("kind", [OwnedKind.DISK, OwnedKind.VM])
def test_an_unknown_object_is_found_by_its_mark_unless_copies_share_it(
    pool: MemoryPool, ledger: MemoryLedger, kind: OwnedKind
) -> None:
    where = TaggedKind.DISK if kind is OwnedKind.DISK else TaggedKind.VM
    for uuid in ("one", "two"):
        if kind is OwnedKind.DISK:
            pool.add_disk(uuid, blocks(1))
        else:
            pool.vms[uuid] = vm(uuid, uuid=uuid)
        pool.tag(where, uuid, RUN_TAG, "mark")
    line = _intend(ledger, kind, "mark")
    assert _sweep(pool, ledger) == ([], ["MarkNotUnique"])
    with pytest.raises(MarkNotUnique) as caught:
        remove_line(pool.client, ledger, ledger.get(line))
    assert RUN_TAG in caught.value.next_step()
    pool.untag(where, "two", RUN_TAG)
    removed, _ = _sweep(pool, ledger)
    assert len(removed) == 1
    held = pool.disks if kind is OwnedKind.DISK else pool.vms
    assert "one" not in held
    assert "two" in held


def test_a_snapshot_that_became_an_ordinary_vm_or_disk_is_left(pool: MemoryPool, ledger: MemoryLedger) -> None:
    _intend(ledger, OwnedKind.VM_SNAPSHOT, "s", external_id="vm-web")
    _intend(ledger, OwnedKind.DISK_SNAPSHOT, "web-disk-0", external_id="web-disk-0")
    assert _sweep(pool, ledger) == ([], ["NotASnapshot", "NotASnapshot"])
    assert "vm-web" in pool.vms
    assert "web-disk-0" in pool.disks
    with pytest.raises(NotASnapshot):
        remove_line(pool.client, ledger, ledger.open_lines()[0])


def test_change_metadata_is_removed_as_the_snapshot_that_it_was(pool: MemoryPool, ledger: MemoryLedger) -> None:
    pool.add_disk("meta", blocks(1), kind="cbt_metadata")
    _intend(ledger, OwnedKind.DISK_SNAPSHOT, "meta", external_id="meta")
    assert _sweep(pool, ledger)[1] == []
    assert pool.disk(DiskUuid("meta")) is None


def test_the_disk_of_a_vm_that_was_handed_over_is_handed_over_too(pool: MemoryPool, ledger: MemoryLedger) -> None:
    """A restore died between the two lines: removing the disk would take it from its owner's VM."""
    ledger.keep(_intend(ledger, OwnedKind.VM, "vm mark", external_id="vm-web"), why="handed over")
    disk = _intend(ledger, OwnedKind.DISK, "disk mark", external_id="web-disk-0")
    assert _sweep(pool, ledger) == ([], [])
    assert ledger.get(disk).state is LedgerState.KEPT
    assert "web-disk-0" in pool.disks


def test_sweeping_is_safe_twice_and_when_everything_is_gone(pool: MemoryPool, ledger: MemoryLedger) -> None:
    for kind in OwnedKind:
        _intend(ledger, kind, f"{kind.value} known", external_id=f"gone-{kind.value}")
        _intend(ledger, kind, f"{kind.value} never seen")
    for _ in range(2):
        assert _sweep(pool, ledger) == ([], [])
    assert ledger.open_lines() == []


def test_a_line_that_was_kept_meanwhile_is_not_touched(pool: MemoryPool, ledger: MemoryLedger) -> None:
    pool.add_disk("ref", blocks(1), is_snapshot=True)
    line = _intend(ledger, OwnedKind.DISK_SNAPSHOT, "ref", external_id="ref")
    lines = lines_to_sweep(ledger, pool=POOL, is_final=lambda _: True, now=NOW)
    ledger.keep(line, why="another process was faster")
    assert sweep_ledger(pool.client, ledger, lines).removed == ()
    assert "ref" in pool.disks
