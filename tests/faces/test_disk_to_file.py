"""One disk of a restore point by the command line: to files of every format, without the pool, and past damage."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from holdfast.core import ExitStatus
from holdfast.lab import RunningLab
from tests.faces.conftest import Cli, backup, points, write_as_guest

pytestmark = pytest.mark.slow(reason="a lab pool, whole runs")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_disk_comes_to_files_without_any_pool(ready: Cli, lab: RunningLab, tmp_path: Path) -> None:
    uuid = write_as_guest(lab, "alpha", offset_bytes=5_000_000, data=b"holdfast" * 30_000)
    wanted = lab.control.sha256(uuid)
    backup(ready, "--vm", "alpha")
    lab.close()
    point = str(points(ready)[0]["id"])

    told = ready("restore", "disk", point, "0", "--to", str(tmp_path / "a.raw"), "--repository", "main")
    assert _sha256(tmp_path / "a.raw") == wanted
    assert (told["path"], told["format"], told["missing"]) == (str(tmp_path / "a.raw"), "raw", [])

    for name in ("a.vhd", "a.qcow2"):
        said = ready.text("restore", "disk", point, "0", "--to", str(tmp_path / name), "--repository", "main")
        assert "is restored" in said
        if shutil.which("qemu-img"):
            command = ["qemu-img", "compare", str(tmp_path / name), "-F", "raw", str(tmp_path / "a.raw")]
            command[2:2] = ["-f", "vpc" if name.endswith("vhd") else "qcow2"]
            assert subprocess.run(command, capture_output=True, check=False).returncode == 0

    arguments = ["restore", "disk", point, "0", "--repository", "main", "--to"]
    for target, disk, status, code in (
        ("a.raw", "0", ExitStatus.REFUSED, "restore.file-exists"),
        ("a.zip", "0", ExitStatus.USAGE, "restore.format-unknown"),
        ("b.raw", "9", ExitStatus.NOT_FOUND, "restore.disk-unknown"),
        ("no/b.raw", "0", ExitStatus.FAILED, "restore.file-not-written"),
    ):
        arguments[3] = disk
        assert ready(*arguments, str(tmp_path / target), status=status)["error"]["code"] == code


def test_what_is_damaged_is_named_listed_and_zero_in_the_file(ready: Cli, lab: RunningLab, tmp_path: Path) -> None:
    write_as_guest(lab, "alpha", offset_bytes=5_000_000, data=bytes(range(256)) * 2000)
    backup(ready, "--vm", "alpha")
    point = str(points(ready)[0]["id"])
    whole = tmp_path / "whole.raw"
    ready("restore", "disk", point, "0", "--to", str(whole), "--repository", "main")
    pack = max((tmp_path / "repository/packs").glob("*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[5000] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)

    command = ["restore", "disk", point, "0", "--repository", "main", "--to", str(tmp_path / "a.raw")]
    refused = ready(*command, status=ExitStatus.DAMAGED)["error"]
    assert refused["code"] == "restore.disk-damaged"
    assert "--partial" in refused["next_step"]
    assert not (tmp_path / "a.raw").exists()

    told = ready(*command, "--partial", status=ExitStatus.PARTIAL)
    listed = json.loads((tmp_path / "a.raw.missing.json").read_text())
    assert told["missing_list"] == str(tmp_path / "a.raw.missing.json")
    assert listed["missing"] == told["missing"]
    assert sum(each["length_bytes"] for each in told["missing"]) == told["missing_bytes"] > 0
    image = bytearray(whole.read_bytes())
    for each in told["missing"]:
        image[each["offset_bytes"] : each["offset_bytes"] + each["length_bytes"]] = bytes(each["length_bytes"])
    assert (tmp_path / "a.raw").read_bytes() == image
    assert image != whole.read_bytes()

    (tmp_path / "a.raw").unlink()
    (tmp_path / "a.raw.missing.json").unlink()
    said = ready.text(*command, "--partial", status=ExitStatus.PARTIAL)
    assert "MISSING" in said
    assert f"packs/{pack.parent.name}/{pack.name}" in said
