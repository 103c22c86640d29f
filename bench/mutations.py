"""What happens to a disk between backups: a package upgrade, and the same machine copied or installed again.

Files are written into the file system of an image by ``debugfs``, so no root and no mount is needed. Invariant:
everything follows from a seed and from the base image.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bench.gpt import PARTITION_OFFSET_BYTES
from holdfast.core import BLOCK_BYTES

__all__ = ["changed_granules", "clone_machine", "upgrade_packages"]

_UPGRADED_FILES = 800
_STATUS = "/var/lib/dpkg/status"
_CLONE_UUID = "99999999-2222-3333-4444-555555555555"
_PAGE_BYTES = 4096
_COMPARED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    length_bytes: int


def upgrade_packages(disk: Path, *, upgraded_bytes: int, debugfs: str) -> int:
    """Replace files as a package manager does: a new file beside the old one, then renamed; return the bytes written.

    A new version differs from the old as a rebuilt program does: most of it is the same, at another offset from some
    place on, with small changes all over.
    """
    chance = random.Random(17)
    chosen: list[_File] = []
    left_bytes = upgraded_bytes
    candidates = [file for file in _files(disk) if file.path.startswith("/usr/")]
    chance.shuffle(candidates)
    for file in candidates:
        if file.length_bytes <= left_bytes and len(chosen) < _UPGRADED_FILES:
            chosen.append(file)
            left_bytes -= file.length_bytes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = []
        written_bytes = 0
        for number, content in enumerate(_contents(disk, [file.path for file in chosen])):
            new = folder / f"{number}"
            new.write_bytes(_rebuilt(content, chance))
            written_bytes += new.stat().st_size
            script += _replace(chosen[number].path, new)
        status = folder / "status"
        status.write_bytes(b"Package: base\nStatus: install ok installed\nVersion: 2\n\n" * 60_000)
        log = folder / "log"
        log.write_text("".join(f"2026-11-20 09:08:20 upgrade package-{n}:amd64 1.{n} 1.{n + 1}\n" for n in range(4000)))
        script += ["mkdir /var/log", *_replace(_STATUS, status), *_replace("/var/log/dpkg.log", log)]
        _run_debugfs(disk, script, debugfs=debugfs)
        return written_bytes + status.stat().st_size + log.stat().st_size


def clone_machine(disk: Path, *, debugfs: str, tune2fs: str) -> None:
    """Turn a copy of a disk into a clone that has booted once: identity, keys, logs and file system UUID are new."""
    chance = random.Random(23)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = ["mkdir /etc", "mkdir /etc/ssh", "mkdir /var/log", "mkdir /var/log/journal"]
        for path, content in [
            ("/etc/hostname", b"web-2\n"),
            ("/etc/machine-id", chance.randbytes(16).hex().encode()),
            *((f"/etc/ssh/ssh_host_{kind}_key", chance.randbytes(600)) for kind in ("rsa", "ecdsa", "ed25519")),
            ("/var/log/journal/system.journal", b"".join(_journal(chance))),
        ]:
            new = folder / path.replace("/", "_")
            new.write_bytes(content)
            script += _replace(path, new)
        _run_debugfs(disk, script, debugfs=debugfs)
    subprocess.run(
        [tune2fs, "-f", "-U", _CLONE_UUID, f"{disk}?offset={PARTITION_OFFSET_BYTES}"],
        check=True,
        stdout=subprocess.DEVNULL,
        input=b"y\n",
    )


def changed_granules(before: Path, after: Path) -> list[list[int]]:
    """Return which 64 KiB granules differ, as ascending, merged ``[offset, length]`` in bytes."""
    ranges: list[list[int]] = []
    with before.open("rb") as old, after.open("rb") as new:
        start = 0
        while piece := new.read(_COMPARED_BYTES):
            other = old.read(len(piece))
            whole = len(piece) // BLOCK_BYTES * BLOCK_BYTES
            differs = (
                (np.frombuffer(piece, np.uint64, whole // 8) != np.frombuffer(other, np.uint64, whole // 8))
                .reshape(-1, BLOCK_BYTES // 8)
                .any(axis=1)
            )
            for granule in np.flatnonzero(differs).tolist():
                offset = start + granule * BLOCK_BYTES
                if ranges and sum(ranges[-1]) == offset:
                    ranges[-1][1] += BLOCK_BYTES
                else:
                    ranges.append([offset, BLOCK_BYTES])
            start += len(piece)
    return ranges


def _rebuilt(content: bytes, chance: random.Random) -> bytes:
    """Return the new version of a program: something inserted near its beginning, addresses changed all over."""
    at = chance.randrange(len(content) // 4 + 1)
    changed = bytearray(content[:at] + chance.randbytes(chance.randrange(16, 400)) + content[at:])
    for page in range(0, len(changed) - 64, _PAGE_BYTES):
        if chance.random() < 0.5:
            place = page + chance.randrange(min(_PAGE_BYTES, len(changed) - page - 16))
            changed[place : place + 8] = chance.randbytes(8)
    return bytes(changed)


def _journal(chance: random.Random) -> Iterator[bytes]:
    for number in range(120_000):
        moment = f"Nov 20 09:{number // 6000:02d}:{number // 100 % 60:02d}"
        yield f"{moment} web-2 kernel: [{number / 977:.6f}] {chance.getrandbits(48):x} ok\n".encode()


def _replace(path: str, new: Path) -> list[str]:
    """Return the commands that put a file in another one's place, written before the old one goes."""
    return [f"write {new} {path}.new", f"rm {path}", f"ln {path}.new {path}", f"unlink {path}.new"]


def _run_debugfs(disk: Path, script: list[str], *, debugfs: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as file:
        file.write("\n".join(script) + "\n")
        file.flush()
        subprocess.run(
            [debugfs, "-w", "-f", file.name, f"{disk}?offset={PARTITION_OFFSET_BYTES}"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _files(disk: Path) -> list[_File]:
    """Return the regular files of the disk, by path."""
    with disk.open("rb") as file:
        found = []
        waiting = [("", _file_system(disk, file).root)]
        while waiting:
            folder, node = waiting.pop()
            for name, child in node.listdir().items():
                if name in (".", "..", "lost+found") or set(name) & set('" \\\t'):
                    continue
                path = f"{folder}/{name}"
                if child.filetype == 0o040000:
                    waiting.append((path, child))
                elif child.filetype == 0o100000 and child.size > 4096:
                    found.append(_File(path, child.size))
        return sorted(found, key=lambda each: each.path)


def _file_system(disk: Path, file: BinaryIO) -> Any:
    from dissect.extfs import ExtFS
    from dissect.util.stream import RangeStream

    size_bytes = disk.stat().st_size
    return ExtFS(RangeStream(file, PARTITION_OFFSET_BYTES, size_bytes - PARTITION_OFFSET_BYTES))


def _contents(disk: Path, paths: list[str]) -> Iterator[bytes]:
    with disk.open("rb") as file:
        file_system = _file_system(disk, file)
        for path in paths:
            yield file_system.get(path).open().read()
