"""libnbd's own tools against the lab's NBD server, expecting what they get from a real host."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.lab import RunningLab
from holdfast.lab.nbd import NbdMode
from tests.support.lab import logged_in, tiny_lab
from tests.unit.lab.nbd.support import CONTENT, NAME, UUID, certificate_pem, serving
from tests.unit.lab.talk import new_disk

pytestmark = pytest.mark.judge


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: libnbd-bin): the lab's NBD server is not judged by libnbd here")
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def uri(address: tuple[str, int], *, scheme: str = "nbd", name: str = NAME, query: str = "") -> str:
    # The leading slash is part of the name, hence two of them.
    return f"{scheme}://{address[0]}:{address[1]}/{urllib.parse.quote(name)}{query}"


def test_nbdinfo_sees_a_read_only_newstyle_export_with_simple_packets() -> None:
    with serving(NbdMode.PLAIN) as server:
        told = run(tool("nbdinfo"), uri(server.address))
    assert told.returncode == 0, told.stderr
    for line in ("newstyle-fixed without TLS, using simple packets", f"export-size: {len(CONTENT)}"):
        assert line in told.stdout
    for fact in ("is_read_only: true", "can_multi_conn: false", "can_flush: false", "can_trim: false"):
        assert fact in told.stdout


def test_nbdinfo_may_not_list_and_a_bad_session_is_hung_up_on() -> None:
    nbdinfo = tool("nbdinfo")
    with serving(NbdMode.PLAIN) as server:
        listed = run(nbdinfo, "--list", uri(server.address))
        refused = run(nbdinfo, uri(server.address, name=f"/{UUID}?session_id=OpaqueRef:bad"))
    assert listed.returncode != 0 and "not supported" in listed.stderr
    assert refused.returncode != 0 and "disconnected" in refused.stderr


def test_nbdinfo_cannot_speak_in_clear_to_a_server_that_wants_encryption() -> None:
    with serving(NbdMode.TLS) as server:
        told = run(tool("nbdinfo"), uri(server.address))
    assert told.returncode != 0


@pytest.mark.parametrize("mode", [NbdMode.PLAIN, NbdMode.TLS])
def test_nbdcopy_gets_the_disk_bit_for_bit(tmp_path: Path, mode: NbdMode) -> None:
    (tmp_path / "ca-cert.pem").write_bytes(certificate_pem()[0])
    with serving(mode) as server:
        if mode is NbdMode.TLS:
            source = uri(server.address, scheme="nbds", query=f"?tls-certificates={tmp_path}")
        else:
            source = uri(server.address)
        copied = run(tool("nbdcopy"), source, str(tmp_path / "copy.raw"))
    assert copied.returncode == 0, copied.stderr
    assert (tmp_path / "copy.raw").read_bytes() == CONTENT


# -- a whole lab, as a client meets it: the disk by its name, the certificate by what the pool tells of it

SIZE = 5 << 20

SHELL = """
import hashlib
h.set_tls(nbd.TLS_REQUIRE)
h.set_tls_certificates({folder!r})
h.set_tls_verify_peer(True)
h.set_export_name({name!r})
h.connect_tcp({address!r}, {port!r})
digest = hashlib.sha256()
for offset in range(0, h.get_size(), 1 << 20):
    digest.update(h.pread(min(1 << 20, h.get_size() - offset), offset))
print("tls", h.get_tls_negotiated(), "size", h.get_size(), "digest", digest.hexdigest())
print("can", h.is_read_only(), h.can_multi_conn(), h.can_flush(), h.can_trim(), h.get_protocol())
try:
    h.pread(512, 100, 0)
except nbd.Error as refused:
    print("misaligned", refused.errno)
try:
    h.pread(512, 0)
except nbd.Error:
    print("dead")
"""


@pytest.fixture
def nbd_lab(request: pytest.FixtureRequest) -> Iterator[tuple[RunningLab, Any, str]]:
    """A lab with a disk of noise, its session, and the disk; the mode is the parameter."""
    with tiny_lab(nbd=request.param) as lab, logged_in(lab) as session:
        disk = new_disk(session.xenapi, SIZE)
        name = session.xenapi.VDI.get_uuid(disk)
        lab.pool.disks.write(name, 0, hashlib.shake_256(b"disk").digest(SIZE))
        yield lab, session, disk


def nbdsh(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in libnbd's shell, with the system's Python: no other has its module."""
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    command = [tool("nbdsh"), "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.mark.slow(reason="starts a lab")
@pytest.mark.parametrize("nbd_lab", ["tls"], indirect=True)
def test_nbdsh_verifies_the_certificate_that_the_pool_tells_and_reads_the_disk(
    nbd_lab: tuple[RunningLab, Any, str], tmp_path: Path
) -> None:
    lab, session, disk = nbd_lab
    (info,) = session.xenapi.VDI.get_nbd_info(disk)
    (tmp_path / "ca-cert.pem").write_text(info["cert"])
    facts = {"folder": str(tmp_path), "name": info["exportname"], "address": info["address"], "port": info["port"]}
    told = nbdsh(SHELL.format(**facts))
    assert told.returncode == 0, told.stderr
    size = lab.pool.disks.size_bytes(session.xenapi.VDI.get_uuid(disk))
    content = lab.pool.disks.read(session.xenapi.VDI.get_uuid(disk), 0, size)
    assert told.stdout.splitlines() == [
        f"tls True size {size} digest {hashlib.sha256(content).hexdigest()}",
        "can True False False False newstyle-fixed",
        "misaligned EINVAL",
        "dead",
    ]


@pytest.mark.slow(reason="starts a lab")
@pytest.mark.parametrize("nbd_lab", ["tls"], indirect=True)
def test_nbdsh_does_not_accept_the_lab_under_another_certificate(
    nbd_lab: tuple[RunningLab, Any, str], tmp_path: Path
) -> None:
    _, session, disk = nbd_lab
    (info,) = session.xenapi.VDI.get_nbd_info(disk)
    (tmp_path / "ca-cert.pem").write_bytes(certificate_pem()[0])
    facts = {"folder": str(tmp_path), "name": info["exportname"], "address": info["address"], "port": info["port"]}
    told = nbdsh(SHELL.format(**facts))
    assert told.returncode != 0
    assert "certificate" in told.stderr


@pytest.mark.slow(reason="starts a lab")
@pytest.mark.parametrize("nbd_lab", ["plain"], indirect=True)
def test_qemu_fails_as_on_a_real_host_because_it_may_not_list(nbd_lab: tuple[RunningLab, Any, str]) -> None:
    lab, session, disk = nbd_lab
    qemu_img = shutil.which("qemu-img")
    if qemu_img is None:
        pytest.skip("qemu-img is not installed (Debian: qemu-utils)")
    name = f"/{session.xenapi.VDI.get_uuid(disk)}?session_id={session._session}"
    host, port = lab.nbd_address
    told = run(qemu_img, "info", "--image-opts", f"driver=nbd,host={host},port={port},export={name}")
    assert told.returncode != 0
    assert "Denied by server for option 3 (list)" in told.stderr
