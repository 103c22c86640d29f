"""Who is compared: for each engine, the command line of every step.

A contender is measured as its user would run it: encrypted, compressed by its own default, in a fresh process per
step. Ours gets the list of changed granules, because a pool gives it one; restic has no such input and reads all.
"""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.images import Images

__all__ = ["Contender", "Holdfast", "Restic", "Step", "Workplace"]


class Step(enum.Enum):
    """What is measured, in this order."""

    CREATE = "create"
    FIRST = "first"
    INCREMENT = "increment"
    RESTORE = "restore"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folders of one contender in one round; everything in them is removed after it."""

    folder: Path

    @property
    def repository(self) -> Path:
        """What grows."""
        return self.folder / "repository"

    @property
    def state(self) -> Path:
        """Caches and keys of the contender."""
        return self.folder / "state"

    @property
    def disk(self) -> Path:
        """The disk that is backed up, at one path whatever version of it is there."""
        return self.folder / "source" / "disk.raw"

    @property
    def target(self) -> Path:
        """Where a restore goes."""
        return self.folder / "restored"

    def show(self, image: Path) -> None:
        """Put a version of the disk at the path that is backed up."""
        self.disk.parent.mkdir(parents=True, exist_ok=True)
        self.disk.unlink(missing_ok=True)
        os.link(image, self.disk)


class Contender(Protocol):
    """One engine with its settings."""

    @property
    def name(self) -> str:
        """Name and version, as the report shows it."""
        ...

    def command(self, step: Step, place: Workplace, images: Images) -> list[str]:
        """Return the command line of a step."""
        ...

    def environment(self, place: Workplace) -> Mapping[str, str]:
        """Return the environment of every step."""
        ...

    def restored(self, place: Workplace) -> Path:
        """Return where the disk is after the restore."""
        ...


class Holdfast:
    """This checkout. ``compression`` is a name of ``holdfast.repository.Compression``."""

    def __init__(self, *, compression: str = "standard") -> None:
        self._compression = compression

    @property
    def name(self) -> str:
        """See ``Contender.name``."""
        return f"holdfast ({self._compression})"

    def command(self, step: Step, place: Workplace, images: Images) -> list[str]:
        """See ``Contender.command``."""
        common = [sys.executable, "-m", "bench.ours", step.value, f"--repository={place.repository}"]
        common.append(f"--key={place.state / 'key'}")
        match step:
            case Step.CREATE:
                return [*common, f"--compression={self._compression}"]
            case Step.FIRST:
                return [*common, f"--disk={place.disk}"]
            case Step.INCREMENT:
                return [*common, f"--disk={place.disk}", f"--changes={images.changes}"]
            case Step.RESTORE:
                return [*common, f"--target={place.target}"]
            case Step.VERIFY:
                return common

    def environment(self, place: Workplace) -> Mapping[str, str]:
        """See ``Contender.environment``."""
        return os.environ

    def restored(self, place: Workplace) -> Path:
        """See ``Contender.restored``."""
        return place.target


class Restic:
    """restic with its defaults: encryption always, compression ``auto``."""

    def __init__(self, program: str) -> None:
        self._program = program
        said = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
        self._version = said.split()[1]

    @classmethod
    def find(cls, program: str) -> Restic | None:
        """Return restic when that program is installed."""
        found = shutil.which(program)
        return None if found is None else cls(found)

    @property
    def name(self) -> str:
        """See ``Contender.name``."""
        return f"restic {self._version}"

    def command(self, step: Step, place: Workplace, images: Images) -> list[str]:
        """See ``Contender.command``."""
        common = [self._program, "--quiet", "--repo", str(place.repository)]
        match step:
            case Step.CREATE:
                return [*common, "init"]
            case Step.FIRST | Step.INCREMENT:
                return [*common, "backup", str(place.disk)]
            case Step.RESTORE:
                # Ours skips zeros too.
                return [*common, "restore", "latest", "--sparse", "--target", str(place.target)]
            case Step.VERIFY:
                return [*common, "check", "--read-data"]

    def environment(self, place: Workplace) -> Mapping[str, str]:
        """See ``Contender.environment``."""
        return {
            **os.environ,
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(place.state / "cache"),
            "HOME": str(place.state),
        }

    def restored(self, place: Workplace) -> Path:
        """See ``Contender.restored``."""
        return place.target / place.disk.relative_to("/")
