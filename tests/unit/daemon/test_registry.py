"""The registry keeps whole files or none, and says what is wrong with one that is not ours."""

from __future__ import annotations

import dataclasses
import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.daemon import ConfigDamaged, ConfigNotWritable, FileRegistry, NameInvalid, write_private_file
from holdfast.model import PoolUuid, RepositoryId
from holdfast.service import LineLimits, NameTaken, NameUnknown, PoolConfig, RepositoryConfig
from holdfast.storage import LockMode, StoreOptions

POOL = PoolConfig(
    name="prod",
    url="https://xcp1.example.org",
    user="root",
    trust="sha256:ab",
    pool=PoolUuid("p-1"),
    added_at=datetime(2026, 11, 20, 9, 0, tzinfo=UTC),
)
REPOSITORY = RepositoryConfig(
    name="main",
    location="/srv/backup",
    repository=RepositoryId("0" * 32),
    added_at=datetime(2026, 11, 20, 9, 0, tzinfo=UTC),
)


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "config")


def test_what_was_added_comes_back_in_a_new_process(registry: FileRegistry, tmp_path: Path) -> None:
    registry.add_pool(POOL)
    registry.add_repository(REPOSITORY)
    again = FileRegistry(tmp_path / "config")
    assert again.pool("prod") == POOL
    assert again.pools() == [POOL]
    assert again.repository("main") == REPOSITORY
    assert again.repositories() == [REPOSITORY]


def test_a_name_is_taken_once_and_the_first_entry_stays(registry: FileRegistry) -> None:
    registry.add_pool(POOL)
    with pytest.raises(NameTaken) as caught:
        registry.add_pool(POOL)
    assert "holdfast pool remove prod" in caught.value.next_step()
    with pytest.raises(NameTaken):
        registry.check_pool_name("prod")
    registry.check_repository_name("prod")


def test_an_unknown_name_lists_what_is_known(registry: FileRegistry) -> None:
    with pytest.raises(NameUnknown) as nothing:
        registry.pool("x")
    assert "holdfast pool add" in nothing.value.next_step()
    registry.add_pool(POOL)
    with pytest.raises(NameUnknown) as caught:
        registry.remove_pool("x")
    assert "prod" in caught.value.next_step()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "ä", "a b", "-x"])
def test_a_name_that_is_no_file_name_is_refused(registry: FileRegistry, name: str) -> None:
    with pytest.raises(NameInvalid):
        registry.check_pool_name(name)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff", json.dumps({"name": "prod"}).encode(), b'{"name": 1}'],
)
def test_a_damaged_file_is_named_and_nothing_is_guessed(registry: FileRegistry, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config" / "pools" / "prod.json"
    write_private_file(path, content)
    with pytest.raises(ConfigDamaged) as caught:
        registry.pool("prod")
    assert str(path) in str(caught.value)


def test_a_time_without_a_zone_is_damage(registry: FileRegistry, tmp_path: Path) -> None:
    registry.add_pool(POOL)
    path = tmp_path / "config" / "pools" / "prod.json"
    path.write_text(path.read_text().replace("2026-11-20T09:00:00Z", "2026-11-20T09:00:00"))
    with pytest.raises(ConfigDamaged):
        registry.pool("prod")


def test_files_are_private_and_no_temporary_stays(registry: FileRegistry, tmp_path: Path) -> None:
    registry.add_pool(POOL)
    folder = tmp_path / "config" / "pools"
    assert [path.name for path in folder.iterdir()] == ["prod.json"]
    assert stat.S_IMODE((folder / "prod.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_replace_the_first_file_wins(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private_file(path, b"first", replace=False)
    write_private_file(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    write_private_file(path, b"third")
    assert path.read_bytes() == b"third"


def test_hosts_that_joined_are_remembered_beside_the_pin(registry: FileRegistry) -> None:
    registry.add_pool(POOL)
    changed = dataclasses.replace(POOL, other_hosts=("cd", "ef"))
    registry.replace_pool(changed)
    assert registry.pool("prod") == changed
    with pytest.raises(NameUnknown):
        registry.replace_pool(dataclasses.replace(POOL, name="other"))


def test_a_file_of_before_pools_had_other_hosts_is_read(registry: FileRegistry, tmp_path: Path) -> None:
    registry.add_pool(POOL)
    path = tmp_path / "config" / "pools" / "prod.json"
    document = json.loads(path.read_text())
    del document["other_hosts"]
    path.write_text(json.dumps(document))
    assert registry.pool("prod") == POOL


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a file")
    with pytest.raises(ConfigNotWritable) as caught:
        FileRegistry(tmp_path / "config").add_pool(POOL)
    assert "prod.json" in caught.value.path


def test_options_of_a_place_come_back_and_a_folder_has_none_in_its_file(registry: FileRegistry, tmp_path: Path) -> None:
    registry.add_repository(REPOSITORY)
    options = StoreOptions(
        endpoint="https://s3.example.org", path_style=False, object_lock=LockMode.COMPLIANCE, ca_file="/etc/ca.pem"
    )
    bucket = replace(REPOSITORY, name="bucket", location="s3://b/p", options=options, credentials="file:/etc/keys")
    registry.add_repository(bucket)
    assert registry.repository("bucket") == bucket
    assert registry.repository("bucket").place.options == options
    assert json.loads((tmp_path / "config/repositories/main.json").read_text())["options"] == {}
    changed = replace(bucket, credentials="sealed")
    registry.replace_repository(changed)
    assert registry.repository("bucket") == changed
    with pytest.raises(NameUnknown):
        registry.replace_repository(replace(bucket, name="other"))


@pytest.mark.parametrize("options", [{"object_locks": "compliance"}, {"object_lock": "always"}, {"endpoint": 1}])
def test_an_option_that_is_not_understood_is_never_passed_over(
    registry: FileRegistry, tmp_path: Path, options: dict[str, object]
) -> None:
    registry.add_repository(REPOSITORY)
    file = tmp_path / "config/repositories/main.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "options": options}))
    with pytest.raises(ConfigDamaged):
        registry.repository("main")


@pytest.mark.parametrize("limits", [LineLimits(), LineLimits(up_bytes_per_s_max=1), LineLimits(down_bytes_per_s_max=9)])
def test_limits_of_the_line_come_back(registry: FileRegistry, limits: LineLimits) -> None:
    registry.add_repository(replace(REPOSITORY, limits=limits))
    assert registry.repository("main").limits == limits
    assert registry.repository("main").place.limits == limits


@pytest.mark.parametrize("limits", [{"up_bytes_per_s_max": 0}, {"down_bytes_per_s_max": "fast"}, 5])
def test_a_limit_that_is_none_is_damage(registry: FileRegistry, tmp_path: Path, limits: object) -> None:
    registry.add_repository(REPOSITORY)
    file = tmp_path / "config" / "repositories" / "main.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "limits": limits}))
    with pytest.raises(ConfigDamaged):
        registry.repository("main")
