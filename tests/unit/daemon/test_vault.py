"""The vault opens only with the machine's own key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from holdfast.core import Secret
from holdfast.daemon import FileVault, MachineKeyDamaged
from holdfast.service import SecretMissing


def test_a_secret_comes_back_and_is_not_readable_on_disk(tmp_path: Path) -> None:
    FileVault(tmp_path).store("pool-prod", Secret("correct horse"))
    assert FileVault(tmp_path).load("pool-prod") == Secret("correct horse")
    assert all(b"correct horse" not in path.read_bytes() for path in tmp_path.iterdir())
    assert stat.S_IMODE((tmp_path / "machine.key").stat().st_mode) == 0o600


def test_storing_again_replaces_and_forgetting_twice_is_fine(tmp_path: Path) -> None:
    vault = FileVault(tmp_path)
    vault.store("x", Secret("1"))
    vault.store("x", Secret("2"))
    assert vault.load("x") == Secret("2")
    vault.forget("x")
    vault.forget("x")
    with pytest.raises(SecretMissing):
        vault.load("x")


def test_another_machines_key_opens_nothing(tmp_path: Path) -> None:
    FileVault(tmp_path / "a").store("x", Secret("1"))
    FileVault(tmp_path / "b").store("y", Secret("2"))
    (tmp_path / "b" / "x.age").write_bytes((tmp_path / "a" / "x.age").read_bytes())
    with pytest.raises(SecretMissing):
        FileVault(tmp_path / "b").load("x")


def test_the_identity_stays_the_same_and_its_public_half_belongs_to_it(tmp_path: Path) -> None:
    vault = FileVault(tmp_path)
    assert vault.identity == FileVault(tmp_path).identity
    assert vault.public_key.startswith("age1")
    assert vault.identity.reveal().startswith("AGE-SECRET-KEY-")


def test_a_damaged_machine_key_says_what_it_costs(tmp_path: Path) -> None:
    vault = FileVault(tmp_path)
    vault.store("x", Secret("1"))
    (tmp_path / "machine.key").write_text("nonsense")
    with pytest.raises(MachineKeyDamaged) as caught:
        vault.load("x")
    assert "recovery key" in caught.value.effect
