"""Changing files inside a file system without mounting it.

Invariant: either all of a change is on the disk or nothing of it; files that the lab's own guests rely on (database,
log, configuration) are never replaced or deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holdfast.lab.disks import DiskStore
from holdfast.lab.images import (
    DATA_FOLDER,
    DATABASE_PATHS,
    LOG_PATHS,
    PlacedFile,
    ToolFailed,
    Volume,
    materialise,
    run_tool,
    write_back,
)

__all__ = ["FilePlan", "change_files_in_place", "change_files_with_debugfs"]

_KEPT = (*DATABASE_PATHS, *LOG_PATHS)
_SYSTEM = ("boot/", "etc/", "Windows/")
"""What a boot needs and what administrators keep."""
_PLAIN = re.compile(r"[A-Za-z0-9._+@/-]+")
"""Names that debugfs takes as they are, without quoting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """Paths to be created, replaced and deleted. A replaced file gets new blocks, as a package manager does it."""

    created: tuple[str, ...]
    replaced: tuple[str, ...]
    deleted: tuple[str, ...]


def change_files_with_debugfs(
    store: DiskStore,
    uuid: str,
    volume: Volume,
    contents: list[bytes],
    *,
    debugfs: Path,
    generator: np.random.Generator,
) -> FilePlan:
    """Carry a plan out on a copy of the disk and write back what differs. ``ToolFailed`` leaves the disk as it was."""
    plan = _plan(volume, len(contents), generator=generator)
    with store.scratch() as scratch:
        image = scratch / "image"
        materialise(store, uuid, image)
        commands = [f"rm /{path}" for path in (*plan.deleted, *plan.replaced)]
        for number, (path, content) in enumerate(zip((*plan.created, *plan.replaced), contents, strict=True)):
            (scratch / f"{number}").write_bytes(content)
            commands.append(f"write {scratch / str(number)} /{path}")
        (scratch / "commands").write_text("\n".join(commands) + "\n")
        place = f"{image}?offset={volume.base_bytes}"
        _, said = run_tool(debugfs, ["-w", "-f", str(scratch / "commands"), place])
        _check(said, writes=len(contents))
        write_back(store, uuid, image)
    return plan


def change_files_in_place(volume: Volume, contents: list[bytes], *, generator: np.random.Generator) -> tuple[int, int]:
    """Overwrite existing files with new contents, cut to their sizes; return how many, and how many bytes."""
    candidates = _replaceable(volume)
    written_bytes = 0
    picks = _sample(candidates, len(contents), generator=generator)
    for file, content in zip(picks, contents, strict=False):
        volume.write(file, 0, content[: file.size_bytes])
        written_bytes += min(len(content), file.size_bytes)
    return len(picks), written_bytes


def _plan(volume: Volume, count: int, *, generator: np.random.Generator) -> FilePlan:
    """Return half new files, half replaced ones, and about as many deletions as there is something to delete."""
    candidates = _replaceable(volume)
    picked = _sample(candidates, count // 2, generator=generator)
    replaced = tuple(file.path for file in picked)
    created = tuple(f"{DATA_FOLDER}/{generator.bytes(6).hex()}.dat" for _ in range(count - len(replaced)))
    own = [file for file in candidates if file.path.startswith(f"{DATA_FOLDER}/") and file.path not in replaced]
    deleted = tuple(file.path for file in _sample(own, min(len(created), len(own) // 2), generator=generator))
    return FilePlan(created=created, replaced=replaced, deleted=deleted)


def _check(said: str, *, writes: int) -> None:
    """Return when debugfs said nothing but what success sounds like; its exit status is 0 whatever happened."""
    lines = [line for line in said.splitlines() if line and not line.startswith(("debugfs:", "debugfs "))]
    allocated = sum(line.startswith("Allocated inode:") for line in lines)
    if allocated != writes or allocated != len(lines):
        raise ToolFailed(tool="debugfs", status=0, said=said)


def _replaceable(volume: Volume) -> list[PlacedFile]:
    return [
        file
        for path, file in sorted(volume.files.items())
        if path not in _KEPT and not path.startswith(_SYSTEM) and _PLAIN.fullmatch(path)
    ]


def _sample(files: list[PlacedFile], count: int, *, generator: np.random.Generator) -> list[PlacedFile]:
    picks = generator.permutation(len(files))[:count]
    return [files[pick] for pick in picks.tolist()]
