"""What shall be on a lab disk.

Invariant: the paths named here exist on every Linux disk that the lab makes, by whatever way it was made; guests look
for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core import MIB

__all__ = ["BOOT_PATH", "DATABASE_PATH", "DATA_FOLDER", "LOG_PATH", "DataDiskSpec", "DiskSpec", "LinuxDiskSpec"]

BOOT_PATH = "boot/vmlinuz"
"""What a boot loads; its place is in the boot record, so guests leave it alone."""
DATABASE_PATH = "var/lib/app/app.db"
LOG_PATH = "var/log/app.log"
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


DiskSpec = LinuxDiskSpec | DataDiskSpec
