"""Who has created or connected a repository on a machine can open it there from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast import service
from holdfast.core import Cancellation
from holdfast.repository import IdentityHolder, IdentityUnlock, OpenUnlock, WrongKey, new_recovery_key
from holdfast.service import NameTaken, NameUnknown, Workspace
from holdfast.storage import MemoryStore
from tests.unit.service.fakes import make_workspace

CANCEL = Cancellation()


@pytest.fixture
def stores() -> dict[str, MemoryStore]:
    return {}


@pytest.fixture
def workspace(tmp_path: Path, stores: dict[str, MemoryStore]) -> Workspace:
    return make_workspace(tmp_path / "a", stores=stores)


def _holders(workspace: Workspace, name: str = "main") -> set[str]:
    return {each.name for each in service.show_repository(workspace, name, cancel=CANCEL).holders}


def test_a_new_repository_opens_here_and_with_the_key_that_is_shown_once(
    workspace: Workspace, tmp_path: Path, stores: dict[str, MemoryStore]
) -> None:
    created = service.create_repository(workspace, name="main", location="/r", cancel=CANCEL)
    assert created.recovery_key is not None
    assert service.list_repositories(workspace) == [created.config]
    assert _holders(workspace) == {"recovery", "machine-a"}
    other = make_workspace(tmp_path / "b", stores=stores, name="machine-b")
    service.connect_repository(
        other, name="copy", location="/r", unlock=IdentityUnlock(created.recovery_key), cancel=CANCEL
    )
    assert _holders(other, "copy") == {"recovery", "machine-a", "machine-b"}
    assert service.list_points(other, "copy", cancel=CANCEL).points == ()


def test_a_machine_that_was_set_up_again_under_its_old_name_gets_a_key_of_its_own(
    workspace: Workspace, tmp_path: Path, stores: dict[str, MemoryStore]
) -> None:
    """The holder of that name belongs to the key that was lost with the old machine."""
    created = service.create_repository(workspace, name="main", location="/r", cancel=CANCEL)
    assert created.recovery_key is not None
    for number, folder in enumerate(("again", "and again"), start=2):
        anew = make_workspace(tmp_path / folder, stores=stores)
        with pytest.raises(NameUnknown):
            service.open_by_name(anew, "main", cancel=CANCEL)
        unlock = IdentityUnlock(created.recovery_key)
        service.connect_repository(anew, name="main", location="/r", unlock=unlock, cancel=CANCEL)
        assert f"machine-a-{number}" in _holders(anew)
    service.remove_repository(workspace, "main")
    service.connect_repository(
        workspace, name="main", location="/r", unlock=IdentityUnlock(created.recovery_key), cancel=CANCEL
    )
    assert _holders(workspace) == {"recovery", "machine-a", "machine-a-2", "machine-a-3"}, "its own key was still there"


def test_a_wrong_key_connects_nothing(workspace: Workspace, tmp_path: Path, stores: dict[str, MemoryStore]) -> None:
    service.create_repository(workspace, name="main", location="/r", cancel=CANCEL)
    other = make_workspace(tmp_path / "b", stores=stores)
    for unlock in (IdentityUnlock(other.vault.identity), OpenUnlock()):
        with pytest.raises(WrongKey):
            service.connect_repository(other, name="main", location="/r", unlock=unlock, cancel=CANCEL)
    assert service.list_repositories(other) == []
    other.registry.add_repository(workspace.registry.repository("main"))
    with pytest.raises(WrongKey, match="the key"):
        service.open_by_name(other, "main", cancel=CANCEL)


def test_a_repository_without_a_secret_opens_for_everybody(
    workspace: Workspace, tmp_path: Path, stores: dict[str, MemoryStore]
) -> None:
    created = service.create_repository(workspace, name="main", location="/r", without_secret=True, cancel=CANCEL)
    assert created.recovery_key is None
    other = make_workspace(tmp_path / "b", stores=stores)
    service.connect_repository(other, name="main", location="/r", unlock=OpenUnlock(), cancel=CANCEL)
    assert _holders(other) == {"open"}


def test_holders_come_and_go(workspace: Workspace) -> None:
    service.create_repository(workspace, name="main", location="/r", cancel=CANCEL)
    safe = new_recovery_key()
    added = service.add_holder(workspace, "main", IdentityHolder("safe", safe.public), cancel=CANCEL)
    assert {each.name for each in added} == {"recovery", "safe", "machine-a"}
    remaining = service.remove_holder(workspace, "main", "recovery", cancel=CANCEL)
    assert {each.name for each in remaining} == {"safe", "machine-a"}


def test_a_name_is_used_once_and_a_removed_one_is_free_again(workspace: Workspace) -> None:
    service.create_repository(workspace, name="main", location="/r", cancel=CANCEL)
    with pytest.raises(NameTaken):
        service.create_repository(workspace, name="main", location="/other", cancel=CANCEL)
    service.remove_repository(workspace, "main")
    with pytest.raises(NameUnknown):
        service.show_repository(workspace, "main", cancel=CANCEL)
