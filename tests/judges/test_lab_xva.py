"""``curl``, GNU ``tar`` and ``xxhash`` on the lab's exports, and a real pool's export into the lab."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash
from backports import zstd

from holdfast.core import MIB
from holdfast.lab import RunningLab
from tests.support.golden import golden_path
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.talk import wait_until

pytestmark = [pytest.mark.judge, pytest.mark.slow(reason="moves whole VMs with other programs")]


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: {package}): the lab's archives are not judged by it here")
    return found


def run(*arguments: str | Path) -> bytes:
    done = subprocess.run([str(word) for word in arguments], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module", params=["bare", "recorded"])
def lab(request: pytest.FixtureRequest) -> Iterator[RunningLab]:
    """A pool with trees of VHD, and one with plain images."""
    with tiny_lab(scenario=request.param, nbd="none") as running:
        yield running


@pytest.fixture
def session(lab: RunningLab) -> Iterator[Any]:
    """A session of the vendor's client."""
    with logged_in(lab) as session:
        yield session


def upload(lab: RunningLab, session: Any, archive: Path, *more: str) -> str:
    """Let curl import an archive, and return the VM; the pool resets the connection when it has all it wants."""
    task = session.xenapi.task.create("import", "")
    query = "&".join([f"session_id={session._session}", f"task_id={task}", *more])
    words = [tool("curl", "curl"), "-sS", "-T", archive, f"{lab.plain_url}/import?{query}"]
    subprocess.run([str(word) for word in words], capture_output=True, timeout=120, check=False)
    wait_until(lab, lambda: lab.pool.db.get("task", task, "status") != "pending")
    record: dict[str, Any] = session.xenapi.task.get_record(task)
    assert record["status"] == "success", record["error_info"]
    found = re.search("OpaqueRef:[0-9a-f-]+", record["result"])
    assert found is not None
    return found[0]


def download(lab: RunningLab, session: Any, vm: str, target: Path, *more: str) -> Path:
    """Let curl export a VM."""
    query = "&".join([f"session_id={session._session}", f"ref={vm}", *more])
    run(tool("curl", "curl"), "-sS", "-f", "-o", target, f"{lab.plain_url}/export?{query}")
    return target


def hashes(lab: RunningLab, session: Any, vm: str) -> list[str]:
    """Return the hash of each disk of a VM, by device."""
    api = session.xenapi
    vbds = [vbd for vbd in api.VM.get_VBDs(vm) if api.VBD.get_type(vbd) == "Disk"]
    disks = [api.VBD.get_VDI(vbd) for vbd in sorted(vbds, key=api.VBD.get_userdevice)]
    return [lab.control.sha256(api.VDI.get_uuid(disk)) for disk in disks]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a real pool: three disks, one of them empty, one that ends in a short block."""
    target = tmp_path_factory.mktemp("real") / "three.xva"
    target.write_bytes(gzip.decompress(golden_path("replay/three.xva.gz").read_bytes()))
    return target


def test_a_real_pools_exports_are_imported_bit_for_bit(lab: RunningLab, session: Any, real: Path) -> None:
    for archive in (real, golden_path("export.xva")):
        vm = upload(lab, session, archive)
        own = [lab.pool.disks.size_bytes(name) for name in _names(session, vm)]
        expected = _assembled(archive, own)
        assert hashes(lab, session, vm) == expected


def _names(session: Any, vm: str) -> list[str]:
    api = session.xenapi
    vbds = [vbd for vbd in api.VM.get_VBDs(vm) if api.VBD.get_type(vbd) == "Disk"]
    return [api.VDI.get_uuid(api.VBD.get_VDI(vbd)) for vbd in sorted(vbds, key=api.VBD.get_userdevice)]


def _assembled(archive: Path, sizes: list[int]) -> list[str]:
    """Return the hashes of the disks as GNU tar and their names tell them, by device."""
    tar = tool("tar", "tar")
    description = run(tar, "-xOf", archive, "ova.xml").decode()
    listed = run(tar, "-tf", archive).decode().split()
    order = {}
    for record in re.findall(r"<member><name>class</name><value>VBD</value>.*?(?=<member><name>class|$)", description):
        device = re.search(r"userdevice</name><value>(\d+)", record)
        disk = re.search(r"<name>VDI</name><value>(Ref:\d+)", record)
        assert device is not None
        assert disk is not None
        order[device[1]] = disk[1]
    names = [name for _, name in sorted(order.items()) if any(member.startswith(f"{name}/") for member in listed)]
    found = []
    for name, size_bytes in zip(names, sizes, strict=True):
        data = bytearray(size_bytes)
        for member in listed:
            if member.startswith(f"{name}/") and not member.endswith(".xxhash"):
                block = run(tar, "-xOf", archive, member)
                at = int(member.rpartition("/")[2]) * MIB
                data[at : at + len(block)] = block
        found.append(hashlib.sha256(data).hexdigest())
    return found


def test_tar_lists_an_export_and_every_checksum_is_right(
    lab: RunningLab, session: Any, real: Path, tmp_path: Path
) -> None:
    vm = upload(lab, session, real)
    archive = download(lab, session, vm, tmp_path / "lab.xva")
    listed = run(tool("tar", "tar"), "-tf", archive).decode().split()
    assert listed[0] == "ova.xml"
    run("tar", "-xf", archive, "-C", tmp_path)
    blocks = [name for name in listed[1:] if not name.endswith(".xxhash")]
    assert [f"{name}.xxhash" for name in blocks] == [name for name in listed if name.endswith(".xxhash")]
    for name in blocks:
        told = (tmp_path / f"{name}.xxhash").read_text()
        assert told == xxhash.xxh64_hexdigest((tmp_path / name).read_bytes()).upper()
    sizes = [lab.pool.disks.size_bytes(name) for name in _names(session, vm)]
    assert _assembled(archive, sizes) == hashes(lab, session, vm)
    padded = sum(512 + -(-(tmp_path / name).stat().st_size // 512) * 512 for name in listed)
    assert archive.stat().st_size == padded + 1024


@pytest.mark.parametrize("packing", ["none", "gzip", "zstd"])
def test_an_export_of_the_lab_comes_back_with_equal_hashes(
    lab: RunningLab, session: Any, real: Path, tmp_path: Path, packing: str
) -> None:
    vm = upload(lab, session, real)
    archive = download(lab, session, vm, tmp_path / "lab.xva", f"use_compression={packing}")
    unpack: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "gzip": gzip.decompress, "zstd": zstd.decompress}
    assert unpack[packing](archive.read_bytes()).startswith(b"ova.xml")
    assert hashes(lab, session, upload(lab, session, archive)) == hashes(lab, session, vm)
