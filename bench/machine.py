"""What a reader of a report has to know about the machine, above all what makes its figures worse than they are."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["describe_machine", "gives_memory_back", "load"]

_BALLOONS = "sys/bus/virtio/drivers/virtio_balloon"
_FREE_PAGE_REPORTING = 5
"""VIRTIO_BALLOON_F_REPORTING, virtio 1.2, 5.5.3."""


def describe_machine(*, root: Path = Path("/")) -> str:
    """Return a short paragraph for the head of a report."""
    parts = [
        f"{os.cpu_count()} cores, {_processor(root)}",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        f"load {load():.1f} before the run",
    ]
    text = ", ".join(parts) + "."
    if gives_memory_back(root=root):
        text += (
            " This virtual machine gives freed memory back to its host, so fresh page cache costs up to 2.5 s per GiB"
            " (measured 2026-11-20): all engines pay it, and ratios look smaller than they are."
        )
    return text


def gives_memory_back(*, root: Path = Path("/")) -> bool:
    """Return whether a balloon device reports freed pages to the hypervisor, which then takes them away."""
    for features in (root / _BALLOONS).glob("*/features"):
        if features.read_text()[_FREE_PAGE_REPORTING : _FREE_PAGE_REPORTING + 1] == "1":
            return True
    return False


def load() -> float:
    """Return how many threads wanted to run during the last minute, on average."""
    return os.getloadavg()[0]


def _processor(root: Path) -> str:
    path = root / "proc/cpuinfo"
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
