"""Every spelling of a share means one place, and none of them carries a password or leads out of the share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.storage import LocationRefused
from holdfast.storage.smb_place import SmbPlace, is_smb_location, parse_smb_location


@pytest.mark.parametrize(
    "text",
    [
        "smb://nas/backup/holdfast",
        "SMB://nas/backup//holdfast/",
        "smb://nas:445/backup/holdfast",
        "//nas/backup/holdfast",
        "//nas/backup/holdfast//",
        r"\\nas\backup\holdfast",
        "\\\\nas\\backup\\holdfast\\",
    ],
)
def test_all_spellings_name_one_place(text: str) -> None:
    assert is_smb_location(text)
    place = parse_smb_location(text)
    assert place == SmbPlace(server="nas", share="backup", folder=("holdfast",))
    assert place.share_path == r"\\nas\backup"
    assert place.folder == ("holdfast",)
    assert place.location == "smb://nas/backup/holdfast"


@pytest.mark.parametrize("text", ["/srv/backup", "srv", "file:///srv", "s3://bucket/x", "/", "//", "///srv", ""])
def test_a_path_or_another_url_is_no_share(text: str) -> None:
    assert not is_smb_location(text)


@pytest.mark.parametrize(
    ("text", "user", "domain", "login"),
    [
        ("smb://keeper@nas/b", "keeper", "", "keeper"),
        ("smb://CORP;keeper@nas/b", "keeper", "CORP", r"CORP\keeper"),
        ("smb://CORP%5Ckeeper@nas/b", "keeper", "CORP", r"CORP\keeper"),
        ("smb://keeper%40corp.example@nas/b", "keeper@corp.example", "", "keeper@corp.example"),
    ],
)
def test_a_user_comes_with_or_without_a_domain(text: str, user: str, domain: str, login: str) -> None:
    place = parse_smb_location(text)
    assert (place.user, place.domain, place.login) == (user, domain, login)
    assert parse_smb_location(place.location) == place


def test_port_encryption_and_an_address_of_version_6_are_kept() -> None:
    place = parse_smb_location("smb://keeper@[fd00::1]:1445/b/x?encryption=required")
    assert (place.server, place.port, place.encrypted) == ("fd00::1", 1445, True)
    assert place.location == "smb://keeper@[fd00::1]:1445/b/x?encryption=required"
    assert place.describe() == "share //fd00::1/b/x (SMB, port 1445)"


@pytest.mark.parametrize(
    "text",
    [
        "smb://",
        "smb:///share",
        "smb://nas",
        "smb://nas/",
        "smb://nas:port/b",
        "smb://nas:70000/b",
        "smb://nas/b/../c",
        "smb://nas/b/%2E%2E/c",
        "smb://nas/b/a%2Fc",
        "smb://nas/b/a%5Cc",
        "smb://nas/b/a*",
        "smb://nas/b/a%00",
        "smb://nas/b/trailing.",
        "smb://nas/b/trailing%20",
        "smb://nas/b?sign=no",
        "smb://nas/b?encryption=maybe",
        "smb://nas/b#x",
        "smb://na s/b",
        r"\\nas",
        r"\\nas\..\c",
    ],
)
def test_what_names_no_folder_of_a_share_is_refused(text: str) -> None:
    with pytest.raises(LocationRefused):
        parse_smb_location(text)


@pytest.mark.parametrize(
    "text", ["smb://keeper:hunter2@nas/b", "smb://keeper:hunter2@nas/..", "smb://k;u:hunter2@nas:x/b"]
)
def test_a_password_in_a_location_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(LocationRefused) as refusal:
        parse_smb_location(text)
    assert "hunter2" not in str(refusal.value)
    assert "hunter2" not in str(refusal.value.facts())


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters='<>:"/\\|?*', exclude_categories=["Cc"]), min_size=1)


@given(
    share=_NAMES,
    folder=st.lists(_NAMES, max_size=3),
    user=_NAMES.filter(lambda name: ";" not in name),
    port=st.integers(1, 65535),
)
def test_the_remembered_spelling_means_the_same_place(share: str, folder: list[str], user: str, port: int) -> None:
    try:
        whole = "\\".join(["\\\\nas", share, *folder])
        place = parse_smb_location(whole)
    except LocationRefused:
        return
    told = SmbPlace(server="nas", share=place.share, folder=place.folder, user=user, port=port)
    assert parse_smb_location(told.location) == told
