"""One step of one engine, in a process of its own: wall time, CPU time, peak memory, growth of its repository.

Invariant: nothing of one step disturbs the next: inputs are in the page cache, earlier writes are on the disk before
the clock starts.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CommandFailed", "Cost", "run_measured", "same_bytes", "used_bytes", "warm"]

_READ_BYTES = 4 << 20


class CommandFailed(Exception):
    """A step ended with an error; the message carries the end of what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one step took. CPU time and memory are those of the process that ran it, threads included."""

    wall_s: float
    cpu_s: float
    rss_peak_bytes: int


def run_measured(command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Cost:
    """Run the command to its end and return what it took; ``CommandFailed`` when it fails."""
    os.sync()
    with log.open("wb") as output:
        start_s = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT) as process:
            _, status, usage = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - start_s
            process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        said = log.read_text(errors="replace")[-2000:]
        raise CommandFailed(f"{' '.join(command)} ended with status {process.returncode}:\n{said}")
    return Cost(wall_s=wall_s, cpu_s=usage.ru_utime + usage.ru_stime, rss_peak_bytes=usage.ru_maxrss * 1024)


def used_bytes(folder: Path) -> int:
    """Return the space that a folder takes on its disk, as ``du`` counts it; 0 when it is not there."""
    total_bytes = 0
    for path in [folder, *folder.rglob("*")] if folder.exists() else []:
        total_bytes += path.lstat().st_blocks * 512
    return total_bytes


def warm(path: Path) -> None:
    """Read a file once, so that every engine finds it in the page cache."""
    buffer = bytearray(_READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def same_bytes(path: Path, other: Path) -> bool:
    """Return whether two files hold the same bytes; every byte is compared, nothing is cached."""
    if path.stat().st_size != other.stat().st_size:
        return False
    with path.open("rb", buffering=0) as file, other.open("rb", buffering=0) as other_file:
        while piece := file.read(_READ_BYTES):
            if piece != other_file.read(len(piece)):
                return False
    return True
