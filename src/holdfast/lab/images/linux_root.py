"""The files of a small Linux server, laid out in a folder from which a file system is made.

Invariant: configuration is invented, so that nothing of the machine's owner is on a lab disk; times are fixed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from holdfast.core import MIB
from holdfast.lab.images.database import write_database
from holdfast.lab.images.machine import iter_machine_files
from holdfast.lab.images.spec import BOOT_PATH, DATA_FOLDER, DATABASE_PATH, LOG_PATH, LinuxDiskSpec
from holdfast.lab.images.text import Prose, noise

__all__ = ["etc_files", "new_log", "write_linux_root"]

_FIXED_TIME_S = 1767225600
_FILLER_FILE_BYTES = 2 * MIB
_FOLDERS = ("boot", "dev", "home", "proc", "root", "run", "srv", "sys", "tmp", "usr/bin", "usr/lib", "usr/share/doc")


def write_linux_root(
    folder: Path, spec: LinuxDiskSpec, *, uuid: str, boot_file: bytes, generator: np.random.Generator
) -> None:
    """Fill an empty folder with a server's files, of about ``spec.files_bytes`` and its database and log."""
    for name in (*_FOLDERS, DATA_FOLDER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, content in etc_files(spec.hostname, uuid=uuid).items():
        _place(folder / name).write_bytes(content)
    (folder / BOOT_PATH).write_bytes(boot_file)
    left_bytes = spec.files_bytes
    for file in iter_machine_files(spec.files_bytes):
        try:
            shutil.copyfile(file.source, _place(folder / file.target))
        except OSError:
            continue  # a package manager may be at work on this machine
        (folder / file.target).chmod(0o755 if file.target.startswith("usr/bin") else 0o644)
        left_bytes -= file.size_bytes
    _write_filler(folder / DATA_FOLDER, left_bytes, generator=generator)
    write_database(_place(folder / DATABASE_PATH), spec.database_bytes, generator=generator)
    _place(folder / LOG_PATH).write_bytes(new_log(spec.log_bytes))
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            os.utime(Path(place) / name, (_FIXED_TIME_S, _FIXED_TIME_S), follow_symlinks=False)


def etc_files(hostname: str, *, uuid: str) -> dict[str, bytes]:
    """Return the server's configuration, by path."""
    texts = {
        "etc/hostname": f"{hostname}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n",
        "etc/fstab": f"UUID={uuid} / ext4 defaults 0 1\n",
        "etc/os-release": 'NAME="Lab Linux"\nID=lab\nVERSION_ID="1"\nPRETTY_NAME="Lab Linux 1"\n',
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/srv:/usr/sbin/nologin\n",
        "etc/group": "root:x:0:\nwww-data:x:33:\n",
        "etc/app/app.conf": "listen = 127.0.0.1:8080\ndatabase = /var/lib/app/app.db\nlog = /var/log/app.log\n",
    }
    return {path: text.encode() for path, text in texts.items()}


def new_log(size_bytes: int) -> bytes:
    """Return a log that has its full size from the start, so that appending never moves a block: see ``guests``."""
    return b"position=00000064\n".ljust(64, b"\n") + b"\n" * (size_bytes - 64)


def _write_filler(folder: Path, total_bytes: int, *, generator: np.random.Generator) -> None:
    """Make up for files that this machine does not have: half of it text, half of it as incompressible as media."""
    prose = Prose(generator, corpus_bytes=max(total_bytes, MIB) // 8) if total_bytes > 0 else None
    number = 0
    while prose is not None and total_bytes > 0:
        length_bytes = min(_FILLER_FILE_BYTES, total_bytes)
        content = prose.text(length_bytes).encode() if number % 2 else noise(generator, length_bytes)
        (folder / f"media-{number:05d}.bin").write_bytes(content)
        total_bytes -= length_bytes
        number += 1


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
