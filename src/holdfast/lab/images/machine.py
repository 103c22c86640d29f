"""Real files from this machine for the lab's disks: programs, libraries, documentation.

Only what every user may read is taken, so that root and an ordinary user get the same disk and no secret of the machine
lands on it; configuration is invented instead (``linux_root``). Invariant: the same machine gives the same list.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.core import MIB

__all__ = ["MachineFile", "iter_machine_files"]

_SHARES = (("/usr/bin", 0.3), ("/usr/lib", 0.55), ("/usr/share/doc", 0.15))
"""Programs and libraries fill a Linux disk; documentation brings many small files."""

_FILE_BYTES_MAX = 48 * MIB
_FILES_MAX = 4000
"""Copying, packing and removing small files takes about a millisecond each on a busy machine, and people watch it."""


_MISSES_MAX = 64
"""So many files in a row that do not fit any more mean that the share is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFile:
    """A file to be copied, and where it goes."""

    source: Path
    target: str
    size_bytes: int


def iter_machine_files(total_bytes: int) -> Iterator[MachineFile]:
    """Yield files of at most ``total_bytes`` together; what one folder lacks is not made up by another."""
    for folder, share in _SHARES:
        left_bytes = int(total_bytes * share)
        left_files = int(_FILES_MAX * share)
        misses = 0
        for found in _walk(Path(folder)):
            if left_files == 0 or misses > _MISSES_MAX:
                break
            if found.size_bytes <= left_bytes:
                left_bytes -= found.size_bytes
                left_files -= 1
                misses = 0
                yield found
            else:
                misses += 1


def _walk(folder: Path) -> Iterator[MachineFile]:
    for place, folders, names in os.walk(folder, onerror=None, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            try:
                facts = path.lstat()
            except OSError:
                continue  # gone meanwhile
            is_public = stat.S_ISREG(facts.st_mode) and facts.st_mode & stat.S_IROTH
            if is_public and 0 < facts.st_size <= _FILE_BYTES_MAX and str(path).isascii():
                yield MachineFile(source=path, target=str(path.relative_to("/")), size_bytes=facts.st_size)
