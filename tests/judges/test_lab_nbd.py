"""libnbd's own tools against the lab's NBD server, expecting what they get from a real host."""

from __future__ import annotations

import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from holdfast.lab.nbd import NbdMode
from tests.unit.lab.nbd.support import CONTENT, NAME, UUID, certificate_pem, serving

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
