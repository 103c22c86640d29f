"""References that nobody needs are found, and told with the reason; the others stay."""

from __future__ import annotations

from holdfast.model import JsonObject, RepositoryId, RunId, VmUuid
from holdfast.upkeep import CleaningPlan, plan_cleaning
from tests.support.flows import POOL, MemoryLedger


def _ledger() -> MemoryLedger:
    ledger = MemoryLedger()
    for vm, repository in (("web", "one"), ("web", "two"), ("gone", "one")):
        details: JsonObject = {"vm": vm, "vm_name": vm, "repository": repository}
        name = f"{vm} into {repository}"
        line = ledger.intend(run=RunId("r"), pool=POOL, kind="disk-snapshot", name=name, details=details)
        ledger.made(line, external_id=name)
        ledger.keep(line, why="reference")
    restored = ledger.intend(run=RunId("r"), pool=POOL, kind="vm", name="restored", details={"point": "p"})
    ledger.made(restored, external_id="restored")
    ledger.keep(restored, why="handed over to its owner")
    ledger.intend(run=RunId("r"), pool=POOL, kind="vm-snapshot", name="open", details={})
    return ledger


def _plan(*, everything: bool = False) -> CleaningPlan:
    return plan_cleaning(
        _ledger(),
        pool=POOL,
        known_repositories={RepositoryId("one")},
        vms={VmUuid("web")},
        everything=everything,
    )


def test_only_what_has_lost_its_repository_or_its_vm_goes() -> None:
    plan = _plan()
    assert {line.name for line in plan.lines} == {"web into two", "gone into one"}
    assert plan.staying == 1
    told = plan.explain()
    assert "'web into two' of VM 'web': its repository is not known here" in told
    assert "'gone into one' of VM 'gone': its VM is not on the pool any more" in told
    assert told.endswith("1 references stay")


def test_everything_is_every_reference_and_no_restored_vm() -> None:
    plan = _plan(everything=True)
    assert {line.name for line in plan.lines} == {"web into one", "web into two", "gone into one"}
    assert plan.staying == 0
