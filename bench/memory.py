"""Peak memory of a first backup: a 4 GiB disk beside a sparse disk of 64 GiB with the same data spread over it.

The question is whether memory grows with the size of a disk. The answer is one number per disk, measured. Holes of the
file are read as any other range, so the time of the larger disk is that of looking at 64 GiB, mostly zeros.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bench.contenders import Holdfast, Step, Workplace
from bench.images import Images
from bench.measure import Cost, run_measured
from holdfast.core import GIB, MIB, format_bytes

__all__ = ["measure_memory", "prepare_wide_image"]

_FACTOR = 16
_STRIDE_BYTES = MIB


def measure_memory(images: Images, *, folder: Path, say: Callable[[str], None]) -> str:
    """Back up both disks, each into a fresh repository; return a Markdown table of what it took."""
    lines = ["| disk | first s | CPU s | peak RSS MiB |", "| --- | --- | --- | --- |"]
    for image in (images.base, prepare_wide_image(images.base, folder)):
        say(f"first backup of {format_bytes(image.stat().st_size)}")
        cost = _first_backup(image, images, Workplace(folder / "work"))
        name = f"{image.stat().st_size / GIB:g} GiB"
        lines.append(f"| {name} | {cost.wall_s:.2f} | {cost.cpu_s:.1f} | {cost.rss_peak_bytes / MIB:.0f} |")
    return "\n".join(lines)


def prepare_wide_image(base: Path, folder: Path) -> Path:
    """Return a sparse image sixteen times as large as ``base``: each MiB of it followed by fifteen of nothing."""
    path = folder / "wide.raw"
    if path.exists():
        return path
    unfinished = folder / "wide.unfinished"
    with base.open("rb") as source, unfinished.open("wb") as target:
        for n, piece in enumerate(iter(lambda: source.read(_STRIDE_BYTES), b"")):
            if piece.count(0) != len(piece):
                target.seek(n * _FACTOR * _STRIDE_BYTES)
                target.write(piece)
        target.truncate(base.stat().st_size * _FACTOR)
    unfinished.rename(path)
    return path


def _first_backup(image: Path, images: Images, place: Workplace) -> Cost:
    ours = Holdfast()
    shutil.rmtree(place.folder, ignore_errors=True)
    place.state.mkdir(parents=True)
    try:
        place.show(image, at=place.disk)
        for step in (Step.CREATE, Step.FIRST):
            command = ours.command(step, place, images)
            cost = run_measured(command, environment=ours.environment(place), log=place.folder / "log")
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)
    return cost
