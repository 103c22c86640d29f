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


def new_sshfs_views() -> tuple[Path, Path]:
    """Return one folder that does not exist yet, as two machines see it. Skips like ``new_sshfs_folder``."""
    name = f"store-{next(_numbers)}"
    return _mount() / name, _mount("near-too") / name


@functools.cache
def _mount(name: str = "near") -> Path:
    sshfs, fusermount = shutil.which("sshfs"), shutil.which("fusermount3")
    if sshfs is None or fusermount is None or not _SFTP_SERVER.exists():
        pytest.skip("no sshfs on this machine (Debian: apt install sshfs openssh-sftp-server)")
    if not Path("/dev/fuse").exists():
        pytest.skip("this kernel or container offers no FUSE")
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    home = _home()
    near = home / name
    near.mkdir()
    mounted = subprocess.run(
        [sshfs, "-o", f"ssh_command={home / 'server'}", f"here:{home / 'far'}", near],
        capture_output=True,
        timeout=30,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"sshfs cannot mount here: {mounted.stderr.decode(errors='replace').strip()}")
    stack.callback(lambda: subprocess.run([fusermount, "-u", "-z", near], capture_output=True, check=False))
    return near


@functools.cache
def _home() -> Path:
    """Return a folder with what is mounted, and in place of ssh the server itself, on the same machine."""
    home = Path(tempfile.mkdtemp(prefix="holdfast-sshfs-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    server = home / "server"
    server.write_text(f"#!/bin/sh\nexec {_SFTP_SERVER}\n")
    server.chmod(0o700)
    (home / "far").mkdir()
    return home
