"""A real Samba of Debian on a port of its own: everything it writes in one folder, no root, no daemon left behind."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.core import Secret
from holdfast.storage.smb import SmbStore
from holdfast.storage.smb_place import parse_smb_location
from tests.support.servers import free_port, running, wait_listening

__all__ = ["NO_SAMBA", "PASSWORD", "SmbServer", "find_smbd", "new_smb_store", "running_smb_server", "shared_smb_server"]

NO_SAMBA = "no smbd on this machine (Debian: apt install samba)"
PASSWORD = Secret("pass word,1%")
"""With characters that a URL or a command line would trip over."""

_CONFIG = """[global]
  server role = standalone server
  workgroup = LAB
  interfaces = 127.0.0.1
  bind interfaces only = yes
  smb ports = {port}
  pid directory = {home}/run
  lock directory = {home}/lock
  state directory = {home}/state
  cache directory = {home}/cache
  private dir = {home}/private
  ncalrpc dir = {home}/rpc
  log file = {home}/log
  passdb backend = tdbsam:{home}/private/passdb.tdb
  username map = {home}/users
  disable netbios = yes
  disable spoolss = yes
  load printers = no
  server min protocol = SMB2
  map to guest = {guests}
  strict sync = yes
[backup]
  path = {home}/backup
  read only = no
  case sensitive = yes
  mangled names = no
[plain]
  path = {home}/plain
  read only = no
[sealed]
  path = {home}/backup
  read only = no
  smb encrypt = required
  case sensitive = yes
  mangled names = no
[readonly]
  path = {home}/backup
  read only = yes
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmbServer:
    """A server that runs. Shares: ``backup`` (tells case apart), ``plain`` (does not), ``sealed``, ``readonly``."""

    home: Path
    port: int
    user: str
    process: subprocess.Popen[bytes]

    def location(self, folder: str = "store", *, share: str = "backup") -> str:
        """Return the URL of a folder in a share."""
        return f"smb://{self.user}@127.0.0.1:{self.port}/{share}/{folder}"

    def folder(self, share: str = "backup") -> Path:
        """Return where the files of a share lie on this machine."""
        return self.home / ("backup" if share in ("sealed", "readonly") else share)

    def cut_connections(self) -> None:
        """Kill the processes that serve clients, as a restart of the server does to them."""
        self._signal_connections("-9")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let nobody get an answer until the block ends."""
        self._signal_connections("-STOP")
        try:
            yield
        finally:
            self._signal_connections("-CONT")

    def _signal_connections(self, signal: str) -> None:
        found = subprocess.run(["pgrep", "-P", str(self.process.pid), "-x", "smbd"], capture_output=True, check=False)
        for process in found.stdout.split():
            subprocess.run(["kill", signal, process.decode()], capture_output=True, check=False)


def find_smbd() -> str | None:
    """Return the path of smbd, None where there is none."""
    return shutil.which("smbd") or shutil.which("smbd", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def running_smb_server(home: Path, *, guests: str = "never") -> Iterator[SmbServer]:
    """Run a server in an empty folder until the block ends; ``guests`` is Samba's ``map to guest``."""
    smbd = find_smbd()
    assert smbd is not None, NO_SAMBA
    port = free_port()
    for name in ("run", "lock", "state", "cache", "private", "rpc", "backup", "plain"):
        (home / name).mkdir(mode=0o755)
    # A user of the machine is needed behind every user of the server; we are one.
    me = subprocess.run(["id", "-un"], capture_output=True, check=True).stdout.decode().strip()
    (home / "users").write_text(f"{me} = keeper\n")
    config = home / "smb.conf"
    config.write_text(_CONFIG.format(home=home, port=port, guests=guests))
    smbpasswd = shutil.which("smbpasswd", path="/usr/bin:/usr/local/bin") or "smbpasswd"
    typed = f"{PASSWORD.reveal()}\n" * 2
    subprocess.run([smbpasswd, "-c", config, "-s", "-a", me], input=typed.encode(), capture_output=True, check=True)
    command = (smbd, "--foreground", "--no-process-group", f"--configfile={config}")
    with running(*command, output=Path("/dev/null")) as process:
        wait_listening(process, port)
        yield SmbServer(home=home, port=port, user="keeper", process=process)


@functools.cache
def shared_smb_server() -> SmbServer:
    """Return a server that runs until this process ends; skips the test where there is no Samba."""
    if find_smbd() is None:
        pytest.skip(NO_SAMBA)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    home = Path(tempfile.mkdtemp(prefix="holdfast-smb-"))
    stack.callback(lambda: shutil.rmtree(home, ignore_errors=True))
    home.chmod(0o755)
    return stack.enter_context(running_smb_server(home))


_numbers = itertools.count()


def new_smb_store(*, share: str = "backup") -> SmbStore:
    """Return a store in a new folder of the shared server."""
    server = shared_smb_server()
    place = parse_smb_location(server.location(f"store-{next(_numbers)}", share=share))
    return SmbStore(place, password=PASSWORD, create=True)
