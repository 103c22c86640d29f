"""Keys as their owner meets them: a drill proves, a rotation leaves out, a store that was exchanged is noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast import service
from holdfast.core import Cancellation, Secret, SeededEntropy
from holdfast.daemon import FileRegistry
from holdfast.repository import (
    HolderUndecided,
    IdentityHolder,
    IdentityUnlock,
    KeyOutdated,
    WrongKey,
    create_repository,
    new_recovery_key,
)
from holdfast.service import DataKeyExchanged, RepositoryExchanged, Workspace
from holdfast.storage import MemoryStore
from tests.unit.service.fakes import make_workspace

CANCEL = Cancellation()


@pytest.fixture
def stores() -> dict[str, MemoryStore]:
    return {}


@pytest.fixture
def workspace(tmp_path: Path, stores: dict[str, MemoryStore]) -> Workspace:
    return make_workspace(tmp_path / "a", stores=stores)


def created(workspace: Workspace) -> Secret:
    """Make a repository; return its recovery key."""
    recovery = service.create_repository(workspace, name="main", location="/r", cancel=CANCEL).recovery_key
    assert recovery is not None
    return recovery


def advice(workspace: Workspace) -> str:
    return " ".join(service.show_repository(workspace, "main", cancel=CANCEL).advice)


def test_a_drill_proves_a_key_and_is_remembered(workspace: Workspace) -> None:
    recovery = created(workspace)
    assert "ever proven" in advice(workspace)
    done = service.drill(workspace, "main", IdentityUnlock(recovery), cancel=CANCEL)
    assert (done.holder, done.is_current, [each.name for each in done.others]) == ("recovery", True, ["machine-a"])
    assert workspace.registry.repository("main").keys.proven == {"recovery": done.proven_at}
    assert advice(workspace) == ""


def test_a_drill_with_a_wrong_key_proves_nothing(workspace: Workspace) -> None:
    created(workspace)
    with pytest.raises(WrongKey):
        service.drill(workspace, "main", IdentityUnlock(new_recovery_key().secret), cancel=CANCEL)
    assert workspace.registry.repository("main").keys.proven == {}


def test_a_key_that_was_changed_is_no_longer_proven(workspace: Workspace) -> None:
    recovery = created(workspace)
    service.drill(workspace, "main", IdentityUnlock(recovery), cancel=CANCEL)
    fresh = new_recovery_key()
    assert service.change_secret(workspace, "main", IdentityHolder("recovery", fresh.public), cancel=CANCEL) is None
    assert workspace.registry.repository("main").keys.proven == {}
    with pytest.raises(WrongKey):
        service.drill(workspace, "main", IdentityUnlock(recovery), cancel=CANCEL)
    assert service.drill(workspace, "main", IdentityUnlock(fresh.secret), cancel=CANCEL).holder == "recovery"
    service.remove_holder(workspace, "main", "recovery", cancel=CANCEL)
    assert workspace.registry.repository("main").keys.proven == {}


def test_a_drill_with_a_key_that_was_left_out_says_what_it_still_opens(
    workspace: Workspace, stores: dict[str, MemoryStore]
) -> None:
    recovery = created(workspace)
    file = stores["/r"].get("keys/recovery.age")
    service.rotate_data_key(workspace, "main", goes_on=(), leave_out=["recovery"], cancel=CANCEL)
    stores["/r"].put("keys/recovery.age", file)
    done = service.drill(workspace, "main", IdentityUnlock(recovery), cancel=CANCEL)
    assert (done.holder, done.is_current) == ("", False)
    assert workspace.registry.repository("main").keys.proven == {}


def test_with_nothing_but_a_key_that_was_left_out_the_past_can_be_restored(
    workspace: Workspace, tmp_path: Path, stores: dict[str, MemoryStore]
) -> None:
    recovery = created(workspace)
    file = stores["/r"].get("keys/recovery.age")
    service.rotate_data_key(workspace, "main", goes_on=(), leave_out=["recovery"], cancel=CANCEL)
    stores["/r"].put("keys/recovery.age", file)
    before = stores["/r"].snapshot()
    last = make_workspace(tmp_path / "last", stores=stores, name="machine-z")
    unlock = IdentityUnlock(recovery)
    service.connect_repository(last, name="main", location="/r", unlock=unlock, cancel=CANCEL)
    overview = service.show_repository(last, "main", cancel=CANCEL)
    assert overview.points == 0
    assert "newest data key" in overview.advice[0]
    with pytest.raises(KeyOutdated):
        service.add_holder(last, "main", IdentityHolder("machine-z", last.vault.public_key), cancel=CANCEL)
    assert stores["/r"].snapshot() == before
    service.remove_repository(last, "main")
    assert not list((tmp_path / "last" / "secrets").glob("repository-main*"))


def test_two_machines_go_on_after_one_of_them_rotated(
    workspace: Workspace, tmp_path: Path, stores: dict[str, MemoryStore]
) -> None:
    recovery = created(workspace)
    second = make_workspace(tmp_path / "b", stores=stores, name="machine-b")
    unlock = IdentityUnlock(recovery)
    config = service.connect_repository(second, name="main", location="/r", unlock=unlock, cancel=CANCEL)
    assert set(config.keys.proven) == {"recovery"}
    done = service.rotate_data_key(second, "main", goes_on=(), leave_out=(), cancel=CANCEL)
    assert done.goes_on == ("machine-a", "machine-b", "recovery")
    for each in (workspace, second):
        assert service.open_by_name(each, "main", cancel=CANCEL).keys.epoch == 1
        assert each.registry.repository("main").keys.epoch == 1
    service.rotate_data_key(workspace, "main", goes_on=(), leave_out=["machine-b"], cancel=CANCEL)
    with pytest.raises(WrongKey):
        service.open_by_name(second, "main", cancel=CANCEL)


def test_a_machine_whose_key_is_not_recorded_is_asked_for(workspace: Workspace, stores: dict[str, MemoryStore]) -> None:
    created(workspace)
    for info in list(stores["/r"].list("holders/")):
        stores["/r"].delete(info.key)
    with pytest.raises(HolderUndecided, match="recovery"):
        service.rotate_data_key(workspace, "main", goes_on=(), leave_out=(), cancel=CANCEL)


def replaced_by(workspace: Workspace, stores: dict[str, MemoryStore], *, same_id: bool) -> None:
    """Put another repository in the place of the known one, one that this machine's public key was added to."""
    other = MemoryStore()
    entropy = SeededEntropy(5 if same_id else 77)
    create_repository(
        other,
        holders=[IdentityHolder("machine-a", workspace.vault.public_key)],
        clock=workspace.clock,
        entropy=entropy,
        workers=0,
    )
    stores["/r"].restore(other.snapshot())


def test_another_repository_in_the_place_of_the_known_one_is_refused(
    workspace: Workspace, stores: dict[str, MemoryStore]
) -> None:
    created(workspace)
    replaced_by(workspace, stores, same_id=False)
    before = stores["/r"].snapshot()
    with pytest.raises(RepositoryExchanged, match="its id") as caught:
        service.show_repository(workspace, "main", cancel=CANCEL)
    assert "holdfast repository remove main" in caught.value.next_step()
    assert stores["/r"].snapshot() == before
    # The documented way out, when it was meant so.
    service.remove_repository(workspace, "main")
    unlock = IdentityUnlock(workspace.vault.identity)
    service.connect_repository(workspace, name="main", location="/r", unlock=unlock, cancel=CANCEL)
    assert service.show_repository(workspace, "main", cancel=CANCEL).points == 0


def test_the_same_repository_with_another_key_is_refused(workspace: Workspace, stores: dict[str, MemoryStore]) -> None:
    created(workspace)
    config = workspace.registry.repository("main")
    workspace.registry.replace_repository(replace(config, keys=replace(config.keys, fingerprint="00" * 8)))
    with pytest.raises(RepositoryExchanged, match="fingerprint"):
        service.open_by_name(workspace, "main", cancel=CANCEL)


def test_a_configuration_from_before_learns_the_fingerprint_once(workspace: Workspace) -> None:
    created(workspace)
    config = workspace.registry.repository("main")
    workspace.registry.replace_repository(replace(config, keys=service.KeyMemory()))
    fingerprint = service.open_by_name(workspace, "main", cancel=CANCEL).fingerprint
    assert workspace.registry.repository("main").keys.fingerprint == fingerprint


def test_a_store_that_goes_back_behind_a_rotation_is_noticed(
    workspace: Workspace, stores: dict[str, MemoryStore]
) -> None:
    created(workspace)
    service.add_holder(workspace, "main", IdentityHolder("leaver", new_recovery_key().public), cancel=CANCEL)
    last_week = stores["/r"].snapshot()
    service.rotate_data_key(workspace, "main", goes_on=(), leave_out=["leaver"], cancel=CANCEL)
    stores["/r"].restore(last_week)
    with pytest.raises(DataKeyExchanged):
        service.open_by_name(workspace, "main", cancel=CANCEL)
    assert stores["/r"].snapshot() == last_week


def test_an_epoch_that_vanished_stops_writing_and_lets_read(
    workspace: Workspace, stores: dict[str, MemoryStore]
) -> None:
    created(workspace)
    old = {key: stores["/r"].get(key) for key in ("keys/machine-a.age", "keys/recovery.age")}
    service.rotate_data_key(workspace, "main", goes_on=(), leave_out=(), cancel=CANCEL)
    stores["/r"].delete("epochs/00001")
    for key, content in old.items():
        stores["/r"].put(key, content)
    # It looks as if the epoch had never begun, but this machine has seen it begin.
    assert service.show_repository(workspace, "main", cancel=CANCEL).points == 0
    holder = IdentityHolder("friend", new_recovery_key().public)
    with pytest.raises(Exception, match="epoch 1"):
        service.add_holder(workspace, "main", holder, cancel=CANCEL)


def test_what_is_remembered_survives_in_the_file(workspace: Workspace, tmp_path: Path) -> None:
    recovery = created(workspace)
    service.drill(workspace, "main", IdentityUnlock(recovery), cancel=CANCEL)
    again = FileRegistry(tmp_path / "a" / "config").repository("main")
    assert again == workspace.registry.repository("main")
    assert again.keys.proven


def test_a_full_folder_of_our_own_does_not_stop_a_restore(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    created(workspace)
    config = workspace.registry.repository("main")
    workspace.registry.replace_repository(replace(config, keys=service.KeyMemory()))

    def full(_config: object) -> None:
        raise RepositoryExchanged(name="x", store="x", what="x", expected="x", found="x")

    monkeypatch.setattr(workspace.registry, "replace_repository", full)
    assert service.open_by_name(workspace, "main", cancel=CANCEL).id == config.repository


def test_a_lonely_key_holder_is_warned_of(workspace: Workspace) -> None:
    created(workspace)
    service.remove_holder(workspace, "main", "recovery", cancel=CANCEL)
    assert "Only machine-a can open it" in advice(workspace)


def test_an_open_repository_says_so(workspace: Workspace) -> None:
    service.create_repository(workspace, name="main", location="/r", without_secret=True, cancel=CANCEL)
    assert "Everybody" in advice(workspace)
