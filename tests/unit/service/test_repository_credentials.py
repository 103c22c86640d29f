"""Credentials of a repository's place: kept only once they work, sealed ones forgotten with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast import service
from holdfast.core import Cancellation, Secret
from holdfast.service import GivenCredentials, RepositoryPlace, SecretMissing, Workspace
from holdfast.service.config import sealed_name
from holdfast.storage import CredentialsMissing, MemoryStore, ObjectStore
from tests.unit.service.fakes import make_workspace

CANCEL = Cancellation()
GOOD, BAD = Secret("KEY=good"), Secret("KEY=bad")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace whose places open with ``env`` and with good sealed credentials, and with nothing else."""
    store = MemoryStore()
    made = make_workspace(tmp_path)

    def open_store(place: RepositoryPlace, create: bool, cancel: Cancellation) -> ObjectStore:
        if place.credentials == "sealed" and made.vault.load(place.sealed_as) != GOOD:
            raise CredentialsMissing(location=place.location, names=["KEY"])
        if place.credentials not in ("env", "sealed"):
            raise CredentialsMissing(location=place.location, names=["KEY"])
        return store

    return replace(made, open_store=open_store)


def _create(workspace: Workspace, credentials: GivenCredentials) -> None:
    service.create_repository(workspace, name="main", location="s3://b", credentials=credentials, cancel=CANCEL)


def _sealed(workspace: Workspace) -> Secret | None:
    try:
        return workspace.vault.load(sealed_name("main"))
    except SecretMissing:
        return None


def test_sealed_credentials_are_kept_with_the_repository_and_forgotten_with_it(workspace: Workspace) -> None:
    _create(workspace, GivenCredentials(reference="sealed", sealed=GOOD))
    assert service.show_repository(workspace, "main", cancel=CANCEL).points == 0
    service.remove_repository(workspace, "main")
    assert _sealed(workspace) is None


def test_credentials_that_open_nothing_are_not_kept(workspace: Workspace) -> None:
    with pytest.raises(CredentialsMissing):
        _create(workspace, GivenCredentials(reference="sealed", sealed=BAD))
    assert _sealed(workspace) is None
    assert service.list_repositories(workspace) == []


def test_other_credentials_are_used_once_they_have_opened_the_place(workspace: Workspace) -> None:
    _create(workspace, GivenCredentials(reference="env"))
    changed = service.change_credentials(
        workspace, "main", credentials=GivenCredentials(reference="sealed", sealed=GOOD), cancel=CANCEL
    )
    assert changed.credentials == "sealed"
    assert service.list_repositories(workspace) == [changed]
    service.change_credentials(workspace, "main", credentials=GivenCredentials(reference="env"), cancel=CANCEL)
    assert _sealed(workspace) is None


@pytest.mark.parametrize(
    "wrong", [GivenCredentials(reference="sealed", sealed=BAD), GivenCredentials(reference="file:/etc/keys")]
)
def test_the_old_credentials_stay_when_the_new_ones_do_not_open(workspace: Workspace, wrong: GivenCredentials) -> None:
    _create(workspace, GivenCredentials(reference="sealed", sealed=GOOD))
    with pytest.raises(CredentialsMissing):
        service.change_credentials(workspace, "main", credentials=wrong, cancel=CANCEL)
    assert _sealed(workspace) == GOOD
    assert service.show_repository(workspace, "main", cancel=CANCEL).points == 0
