"""What shall be on a lab disk.

Invariant: the paths named here exist on every Linux disk that the lab makes, by whatever way it was made; guests look
for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from holdfast.core import MIB
from holdfast.lab.images.boot_record import GuestSystem

__all__ = [
    "BOOT_PATH",
    "DATABASE_PATH",
    "DATABASE_PATHS",
    "DATA_FOLDER",
    "LOG_PATH",
    "LOG_PATHS",
    "DataDiskSpec",
    "DiskSpec",
    "LinuxDiskSpec",
    "PreparedDiskSpec",
    "VolumeGroupSpec",
]

BOOT_PATH = "boot/vmlinuz"
"""What a boot loads; its place is in the boot record, so guests leave it alone."""
DATABASE_PATH = "var/lib/app/app.db"
LOG_PATH = "var/log/app.log"
DATABASE_PATHS = (DATABASE_PATH, "ProgramData/App/app.db", "database/app.db")
LOG_PATHS = (LOG_PATH, "ProgramData/App/app.log", "database/app.log")
"""The same on a Linux server, on a Windows machine, and on a volume for data."""
DATA_FOLDER = "srv/data"
"""Where guests put new files and delete old ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxDiskSpec:
    """A server's system disk: GPT, one ext4 partition, real files, a database, a log."""

    hostname: str = "server"
    files_bytes: int = 8 * MIB
    database_bytes: int = 4 * MIB
    log_bytes: int = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDiskSpec:
    """A disk that a database uses without a file system: the database, media and a log in fixed places."""

    database_bytes: int = 8 * MIB
    media_bytes: int = 4 * MIB
    log_bytes: int = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedDiskSpec:
    """A disk with a committed file system; with a guest system it boots."""

    filesystem: str
    """One of ``PREPARED``."""
    hostname: str = ""
    table: Literal["gpt", "mbr"] = "gpt"
    has_esp: bool = False
    swap_bytes: int = 0
    content_bytes: int = 6 * MIB
    """How much of programs, libraries and media has bytes."""
    system: GuestSystem | None = None
    needs: tuple[str, ...] = ()
    """Disks that must be there, too, for this one to boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGroupSpec:
    """Disks that share a volume group, with one volume and a committed file system on it."""

    name: str
    volume: str
    filesystem: str
    content_bytes: int = 6 * MIB
    member_ids: tuple[str, ...] = ()
    """What a disk that boots needs them by."""


DiskSpec = LinuxDiskSpec | DataDiskSpec | PreparedDiskSpec
