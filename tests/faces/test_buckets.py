"""Repositories in buckets by the command line: made, used, robbed, brought back; no secret anywhere in clear."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from holdfast.lab import RunningLab
from holdfast.storage import LockMode
from tests.faces.conftest import Cli, backup, points
from tests.support.s3_servers import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    S3Service,
    azure_place,
    s3_place,
    shared_azurite,
    shared_moto,
    shared_radosgw,
)

pytestmark = pytest.mark.slow(reason="a lab pool, a service, several whole runs")


@pytest.fixture(params=["moto", pytest.param("radosgw", marks=pytest.mark.judge)])
def service(request: pytest.FixtureRequest) -> S3Service:
    return shared_moto() if request.param == "moto" else shared_radosgw()


def _keys_file(folder: Path, service: S3Service) -> Path:
    file = folder / "keys"
    file.write_text("\n".join(f"{name}={value}" for name, value in service.credentials().items()))
    file.chmod(0o600)
    return file


def _bit_identical(cli: Cli, lab: RunningLab, vm: str) -> bool:
    before = next(each for each in cli("vm", "list", "lab") if each["name"] == vm)
    wanted = {disk["position"]: lab.control.sha256(disk["uuid"]) for disk in before["disks"]}
    point = points(cli)[-1]["id"]
    report = cli("restore", "vm", point, "--repository", "main", "--pool", "lab", "--name", "back")
    return {each["position"]: lab.control.sha256(each["disk"]) for each in report["run"]["result"]["disks"]} == wanted


def test_the_main_job_in_a_bucket_survives_whoever_steals_its_keys(
    cli: Cli, lab: RunningLab, service: S3Service, tmp_path: Path
) -> None:
    place = s3_place(service, lock=LockMode.GOVERNANCE)
    keys = _keys_file(tmp_path, service)
    cli("pool", "add", "lab", lab.url, "--yes")
    cli(
        *("repository", "create", "main", place.location, "--endpoint", service.url),
        *("--object-lock", "governance", "--credentials", f"file:{keys}"),
    )
    backup(cli, "--vm", "beta")
    assert cli("point", "verify", "--repository", "main")
    assert cli("repository", "undelete", "main", "--dry-run")["plan"] == {"hidden": 0, "replaced": 0, "examples": []}

    bucket, prefix = place.location.removeprefix("s3://").split("/", 1)
    client = service.client()
    listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    for n, each in enumerate(listed):
        if n % 2:
            client.put_object(Bucket=bucket, Key=each["Key"], Body=b"pay us")
        else:
            client.delete_object(Bucket=bucket, Key=each["Key"])

    done = cli("repository", "undelete", "main", "--yes")
    assert done["plan"]["hidden"] + done["plan"]["replaced"] == done["done"]["uncovered"] == len(listed)
    assert len(client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]) == len(listed)
    assert cli("point", "verify", "--repository", "main")
    assert _bit_identical(cli, lab, "beta")


def test_a_restore_needs_no_clean_up_after_a_theft_of_the_keys(cli: Cli, lab: RunningLab, tmp_path: Path) -> None:
    service = shared_moto()
    place = s3_place(service, lock=LockMode.GOVERNANCE)
    cli("pool", "add", "lab", lab.url, "--yes")
    cli(
        *("repository", "create", "main", place.location, "--endpoint", service.url),
        *("--object-lock", "governance", "--credentials", f"file:{_keys_file(tmp_path, service)}"),
    )
    backup(cli, "--vm", "beta")
    bucket, prefix = place.location.removeprefix("s3://").split("/", 1)
    for n, each in enumerate(service.client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]):
        if n % 2:
            service.client().delete_object(Bucket=bucket, Key=each["Key"])
        else:
            service.client().put_object(Bucket=bucket, Key=each["Key"], Body=b"pay us")
    assert _bit_identical(cli, lab, "beta")


@pytest.mark.judge
def test_the_main_job_in_azure(cli: Cli, lab: RunningLab, monkeypatch: pytest.MonkeyPatch) -> None:
    place = azure_place()
    cli("pool", "add", "lab", lab.url, "--yes")
    monkeypatch.setenv("OFFSITE_AZURE_STORAGE_KEY", AZURE_KEY)
    cli(
        *("repository", "create", "main", place.location, "--endpoint", shared_azurite()),
        *("--credentials", "env:OFFSITE"),
    )
    backup(cli, "--vm", "beta")
    assert _bit_identical(cli, lab, "beta")
    assert AZURE_ACCOUNT in cli("repository", "show", "main")["location"]
    point = points(cli)[0]["id"]
    cli("point", "delete", point, "--repository", "main", "--yes")
    cli("repository", "gc", "main")
    assert cli("point", "list", "--repository", "main")["points"] == []


def test_no_secret_is_told_and_none_is_kept_in_clear(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = shared_moto()
    place = s3_place(service)
    keys = "\n".join(f"{name}={value}" for name, value in service.credentials().items())
    told = []
    for name in service.credentials():
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr("sys.stdin", io.StringIO(keys))
    create = ("repository", "create", "main", place.location, "--endpoint", service.url, "-vv")
    told.append(cli.text(*create, "--credentials", "sealed"))
    told.append(cli.text("repository", "show", "main", "-vv"))
    told.append(cli.text("repository", "credentials", "main", "env", status=2))
    monkeypatch.setattr("sys.stdin", io.StringIO(keys.replace("AWS_SECRET", "AWS_SECRETS")))
    told.append(cli.text("repository", "credentials", "main", "sealed", status=4))
    told.append(cli.text("repository", "show", "main"))

    assert service.key not in "".join(told)
    kept = b"".join(path.read_bytes() for path in cli.home.rglob("*") if path.is_file())
    assert service.key.encode() not in kept
    assert b"sealed" in kept


def test_options_that_mean_nothing_to_a_place_are_refused(cli: Cli, tmp_path: Path) -> None:
    for words in (
        (str(tmp_path / "r"), "--object-lock", "governance"),
        (str(tmp_path / "r"), "--credentials", "env"),
        ("azure://account/container", "--region", "x"),
    ):
        assert "Nothing was read or written" in cli.text(
            "repository", "create", "main", *words, status=2 if "--credentials" not in words else 4
        )
    assert not (tmp_path / "r").exists()
