"""A folder behind sshfs: a real file system over a protocol, in user space, without root's mounts or an ssh daemon."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

__all__ = ["new_sshfs_folder"]

_SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")
_numbers = itertools.count()


def new_sshfs_folder() -> Path:
    """Return the path of a folder that does not exist yet on a mount that lasts until this process ends.

    Skips the test where sshfs, its server or the kernel's FUSE are missing: a container of CI may have none of them.
    """
    return _mount() / f"store-{next(_numbers)}"


@functools.cache
def _mount() -> Path:
    sshfs, fusermount = shutil.which("sshfs"), shutil.which("fusermount3")
    if sshfs is None or fusermount is None or not _SFTP_SERVER.exists():
        pytest.skip("no sshfs on this machine (Debian: apt install sshfs openssh-sftp-server)")
    if not Path("/dev/fuse").exists():
        pytest.skip("this kernel or container offers no FUSE")
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    home = Path(tempfile.mkdtemp(prefix="holdfast-sshfs-"))
    stack.callback(lambda: shutil.rmtree(home, ignore_errors=True))
    # In place of ssh: the server itself, on the same machine.
    server = home / "server"
    server.write_text(f"#!/bin/sh\nexec {_SFTP_SERVER}\n")
    server.chmod(0o700)
    for name in ("far", "near"):
        (home / name).mkdir()
    mounted = subprocess.run(
        [sshfs, "-o", f"ssh_command={server}", f"here:{home / 'far'}", home / "near"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"sshfs cannot mount here: {mounted.stderr.decode(errors='replace').strip()}")
    stack.callback(lambda: subprocess.run([fusermount, "-u", "-z", home / "near"], capture_output=True, check=False))
    return home / "near"
