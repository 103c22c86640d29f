"""Where the credentials of a place come from, and what is refused as their source."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core import Secret
from holdfast.daemon import CredentialsNotPrivate, FileVault
from holdfast.daemon.credentials import read_credentials
from holdfast.service import RepositoryPlace, SecretMissing
from holdfast.storage import CredentialsUnreadable, parse_reference

S3 = "s3://bucket/prefix"
SECRET = "top+secret/value"


@pytest.fixture
def vault(tmp_path: Path) -> FileVault:
    return FileVault(tmp_path / "vault")


def _place(credentials: str = "", *, location: str = S3) -> RepositoryPlace:
    return RepositoryPlace(location=location, credentials=credentials, sealed_as="repository/main/credentials")


def _values(place: RepositoryPlace, vault: FileVault) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in read_credentials(place, vault=vault).values.items()}


@pytest.mark.parametrize(("reference", "prefix"), [("", ""), ("env", ""), ("env:OFFSITE", "OFFSITE_")])
def test_credentials_come_from_the_environment_under_their_documented_names(
    reference: str, prefix: str, vault: FileVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{prefix}AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv(f"{prefix}AWS_SECRET_ACCESS_KEY", SECRET)
    assert _values(_place(reference), vault) == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.mark.parametrize(
    "text",
    [
        f"AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY={SECRET}\n",
        f"# of the backup\n\n[default]\naws_access_key_id = id\naws_secret_access_key = {SECRET}",
    ],
)
def test_credentials_come_from_a_private_file_also_one_of_another_tool(
    text: str, vault: FileVault, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(0o600)
    assert _values(_place(f"file:{file}"), vault) == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_a_file_that_others_can_read_or_change_is_refused(mode: int, vault: FileVault, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY={SECRET}")
    file.chmod(mode)
    with pytest.raises(CredentialsNotPrivate, match=f"{mode:o}") as refused:
        read_credentials(_place(f"file:{file}"), vault=vault)
    assert "chmod 600" in refused.value.next_step()


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"AWS_SECRET_KEY={SECRET}",
        f"AWS_ACCESS_KEY_ID=id\nAWS_ACCESS_KEY_ID={SECRET}",
        f"[one]\nAWS_ACCESS_KEY_ID=id\n[two]\nAWS_SECRET_ACCESS_KEY={SECRET}",
        b"\xff\xfe",
    ],
)
def test_a_file_of_another_kind_is_refused_without_a_word_of_it(
    text: str | bytes, vault: FileVault, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(0o600)
    with pytest.raises(CredentialsUnreadable) as refused:
        read_credentials(_place(f"file:{file}"), vault=vault)
    assert SECRET not in f"{refused.value} {refused.value.next_step()} {refused.value.facts()}"


def test_a_file_that_is_not_there_is_named(vault: FileVault, tmp_path: Path) -> None:
    with pytest.raises(CredentialsUnreadable, match="No such file"):
        read_credentials(_place(f"file:{tmp_path}/none"), vault=vault)


def test_sealed_credentials_are_opened_by_this_machine_alone(vault: FileVault, tmp_path: Path) -> None:
    vault.store("repository/main/credentials", Secret(f"AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY={SECRET}"))
    assert _values(_place("sealed"), vault)["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert SECRET.encode() not in b"".join(file.read_bytes() for file in (tmp_path / "vault").iterdir())
    with pytest.raises(SecretMissing):
        read_credentials(_place("sealed"), vault=FileVault(tmp_path / "another"))


def test_a_folder_takes_no_credentials(vault: FileVault) -> None:
    assert read_credentials(_place(location="/srv/backup"), vault=vault).values == {}
    with pytest.raises(CredentialsUnreadable):
        read_credentials(_place("env", location="/srv/backup"), vault=vault)


@pytest.mark.parametrize("text", [SECRET, f"sealed:{SECRET}", "file:", "env:not a name", "ENV", "", f"key={SECRET}"])
def test_what_is_no_reference_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(CredentialsUnreadable) as refused:
        parse_reference(text)
    assert SECRET not in f"{refused.value} {refused.value.facts()}"


def test_a_path_is_made_whole_because_it_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_reference("file:keys").argument == str(tmp_path / "keys")
