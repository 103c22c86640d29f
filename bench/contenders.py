"""Who is compared: for each engine, the command line of every step.

A contender is measured as its user would run it: encrypted, compressed by its own default, in a fresh process per
step. Ours and Xen Orchestra get the list of changed granules, because a pool gives it to both; restic and borg have no
such input and read all. A step that an engine does not have is left out of its row.
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

__all__ = ["Borg", "Contender", "Holdfast", "Restic", "Step", "Workplace", "XenOrchestra"]

_XO_DRIVER = Path(__file__).with_name("peers") / "xo_directory.cjs"


class Step(enum.Enum):
    """What is measured, in this order."""

    CREATE = "create"
    FIRST = "first"
    UPGRADE = "upgrade"
    """An increment after a package upgrade."""
    DATABASE = "database"
    """An increment after half a percent of a database's pages were written."""
    RESTORE = "restore"
    """The newest state, to a file."""
    VERIFY = "verify"
    CLONE = "clone"
    """First backup of a clone of the machine."""
    DELETE = "delete"
    """Of the machine's three points the two older ones go, and their space comes back."""
    REINSTALL = "reinstall"
    """First backup of a machine with the same files in a file system of its own."""


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
    def other_disk(self) -> Path:
        """The disk of another machine."""
        return self.folder / "source" / "other.raw"

    @property
    def target(self) -> Path:
        """Where a restore goes."""
        return self.folder / "restored"

    def show(self, image: Path, *, at: Path) -> None:
        """Put a disk at a path that is backed up."""
        at.parent.mkdir(parents=True, exist_ok=True)
        at.unlink(missing_ok=True)
        os.link(image, at)


class Contender(Protocol):
    """One engine with its settings."""

    @property
    def name(self) -> str:
        """Name and version, as the report shows it."""
        ...

    def command(self, step: Step, place: Workplace, images: Images) -> list[str] | None:
        """Return the command line of a step; None for a step that this engine does not have."""
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
        common = [sys.executable, "-m", "bench.ours"]
        options = [f"--repository={place.repository}", f"--key={place.state / 'key'}"]
        match step:
            case Step.CREATE:
                return [*common, "create", *options, f"--compression={self._compression}"]
            case Step.FIRST:
                return [*common, "back-up", *options, f"--disk={place.disk}"]
            case Step.UPGRADE | Step.DATABASE:
                changes = images.upgrade.changes if step is Step.UPGRADE else images.database.changes
                return [*common, "back-up", *options, f"--disk={place.disk}", f"--changes={changes}"]
            case Step.CLONE | Step.REINSTALL:
                return [*common, "back-up", *options, f"--disk={place.other_disk}", f"--machine={step.value}"]
            case Step.RESTORE:
                return [*common, "restore", *options, f"--target={place.target}"]
            case Step.VERIFY:
                return [*common, "verify", *options]
            case Step.DELETE:
                return [*common, "delete", *options]

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
            case Step.FIRST | Step.UPGRADE | Step.DATABASE:
                return [*common, "backup", str(place.disk)]
            case Step.CLONE | Step.REINSTALL:
                return [*common, "backup", str(place.other_disk)]
            case Step.RESTORE:
                # Ours skips zeros too.
                return [*common, "restore", "latest", "--sparse", "--target", str(place.target)]
            case Step.VERIFY:
                return [*common, "check", "--read-data"]
            case Step.DELETE:
                return [*common, "forget", "--group-by", "paths", "--keep-last", "1", "--prune"]

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


class Borg:
    """borg 1.x as its manual suggests: keyed BLAKE2b, AES, zstd at its default level, content-defined chunks."""

    def __init__(self, program: str) -> None:
        self._program = program
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        self._version = said.split()[1]

    @classmethod
    def find(cls, program: str) -> Borg | None:
        """Return borg when that program is installed."""
        found = shutil.which(program)
        return None if found is None else cls(found)

    @property
    def name(self) -> str:
        """See ``Contender.name``."""
        return f"borg {self._version}"

    def command(self, step: Step, place: Workplace, images: Images) -> list[str]:
        """See ``Contender.command``."""
        create = [self._program, "create", "--compression", "zstd,3", f"::{step.value}"]
        match step:
            case Step.CREATE:
                return [self._program, "init", "--encryption", "repokey-blake2"]
            case Step.FIRST | Step.UPGRADE | Step.DATABASE:
                return [*create, str(place.disk)]
            case Step.CLONE | Step.REINSTALL:
                return [*create, str(place.other_disk)]
            case Step.RESTORE:
                return self._shell(f"mkdir -p {place.target}; cd {place.target}; $0 extract --sparse ::database")
            case Step.VERIFY:
                return [self._program, "check", "--verify-data"]
            case Step.DELETE:
                return self._shell("$0 delete ::first upgrade; $0 compact")

    def environment(self, place: Workplace) -> Mapping[str, str]:
        """See ``Contender.environment``."""
        return {
            **os.environ,
            "BORG_REPO": str(place.repository),
            "BORG_PASSPHRASE": "bench",
            "BORG_BASE_DIR": str(place.state),
        }

    def restored(self, place: Workplace) -> Path:
        """See ``Contender.restored``."""
        return place.target / place.disk.relative_to("/")

    def _shell(self, script: str) -> list[str]:
        return ["sh", "-ec", script, self._program]


class XenOrchestra:
    """Xen Orchestra's block directories with brotli and encryption, driven through its own library.

    ``modules`` is a folder with its packages from npm. It has no deduplication, so a clone is one more first backup.
    """

    def __init__(self, node: str, modules: Path) -> None:
        self._node = node
        self._modules = modules
        package = modules / "node_modules" / "vhd-lib" / "package.json"
        self._version = next(
            line.split('"')[3] for line in package.read_text().splitlines() if line.strip().startswith('"version"')
        )

    @classmethod
    def find(cls, modules: Path) -> XenOrchestra | None:
        """Return it when its packages are there and Node.js is installed."""
        node = shutil.which("node")
        if node is None or not (modules / "node_modules" / "vhd-lib").is_dir():
            return None
        return cls(node, modules)

    @property
    def name(self) -> str:
        """See ``Contender.name``."""
        return f"Xen Orchestra (vhd-lib {self._version})"

    def command(self, step: Step, place: Workplace, images: Images) -> list[str] | None:
        """See ``Contender.command``."""
        command = [self._node, str(_XO_DRIVER), str(self._modules), step.value, str(place.repository)]
        match step:
            case Step.FIRST:
                return [*command, str(place.disk)]
            case Step.UPGRADE | Step.DATABASE:
                changes = images.upgrade.changes if step is Step.UPGRADE else images.database.changes
                return [*command, str(place.disk), str(changes)]
            case Step.RESTORE:
                return [*command, str(place.target)]
            case Step.CLONE | Step.REINSTALL:
                return None
            case Step.CREATE | Step.VERIFY | Step.DELETE:
                return command

    def environment(self, place: Workplace) -> Mapping[str, str]:
        """See ``Contender.environment``."""
        return os.environ

    def restored(self, place: Workplace) -> Path:
        """See ``Contender.restored``."""
        return place.target
