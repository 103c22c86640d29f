"""Which files a prepared file system has: those of a small server, of a Windows machine, of a disk for data.

Invariant: sizes are whole blocks and no file is so small that a file system would keep it inside its own structures, so
every byte of every file has a place that can be filled.
"""

from __future__ import annotations

from holdfast.core import KIB, MIB
from holdfast.lab.images.spec import BOOT_PATH, DATA_FOLDER, DATABASE_PATH, LOG_PATH

__all__ = [
    "ESP_LOADER_PATH",
    "WINDOWS_BOOT_PATH",
    "WINDOWS_DATABASE_PATH",
    "WINDOWS_LOG_PATH",
    "data_tree",
    "esp_tree",
    "server_tree",
    "windows_tree",
]

WINDOWS_BOOT_PATH = "Windows/System32/winload.efi"
WINDOWS_DATABASE_PATH = "ProgramData/App/app.db"
WINDOWS_LOG_PATH = "ProgramData/App/app.log"
ESP_LOADER_PATH = "EFI/BOOT/BOOTX64.EFI"

_BOOT_BYTES = 256 * KIB
_TEXT_BYTES = 4 * KIB

Tree = dict[str, int]


def server_tree() -> Tree:
    """Return the files of a Linux server's root file system: path and size."""
    names = ("hostname", "hosts", "fstab", "os-release", "passwd", "group", "app/app.conf", "machine-id")
    tree = {f"etc/{name}": _TEXT_BYTES for name in names}
    tree |= {BOOT_PATH: _BOOT_BYTES, DATABASE_PATH: 4 * MIB, LOG_PATH: 256 * KIB}
    tree |= {f"usr/bin/program-{number:03d}": (8 + 12 * number) * KIB for number in range(24)}
    tree |= {f"usr/lib/library-{number:03d}.so": (16 + 24 * number) * KIB for number in range(24)}
    tree |= {f"usr/share/doc/manual-{number:03d}.txt": (4 + 4 * (number % 8)) * KIB for number in range(40)}
    return tree | _media(DATA_FOLDER, count=12)


def windows_tree() -> Tree:
    """Return the files of a Windows machine's system volume."""
    system = "Windows/System32"
    tree = {WINDOWS_BOOT_PATH: _BOOT_BYTES, WINDOWS_DATABASE_PATH: 4 * MIB, WINDOWS_LOG_PATH: 256 * KIB}
    tree |= {f"{system}/config/{hive}": MIB for hive in ("SYSTEM", "SOFTWARE", "SAM", "SECURITY")}
    tree |= {f"{system}/drivers/etc/hosts": _TEXT_BYTES, "Windows/win.ini": _TEXT_BYTES}
    tree |= {f"{system}/library{number:03d}.dll": (16 + 24 * number) * KIB for number in range(24)}
    tree |= {f"{system}/drivers/device{number:03d}.sys": (8 + 8 * number) * KIB for number in range(12)}
    tree |= {f"Program Files/App/program{number:03d}.exe": (32 + 16 * number) * KIB for number in range(8)}
    return tree | _media("Users/Public/Documents", count=12)


def data_tree() -> Tree:
    """Return the files of a volume that holds nothing but data."""
    tree = {"database/app.db": 8 * MIB, "database/app.log": 256 * KIB}
    for year in range(2019, 2027):  # folders of their own, so that a file system spreads them
        tree |= _media(f"archive/{year}", count=3)
    return tree


def esp_tree() -> Tree:
    """Return the files of an EFI system partition."""
    return {ESP_LOADER_PATH: 128 * KIB, "EFI/lab/shim.efi": 64 * KIB, "EFI/lab/boot.cfg": _TEXT_BYTES}


def _media(folder: str, *, count: int) -> Tree:
    return {f"{folder}/media-{number:04d}.bin": (128 + 128 * (number % 8)) * KIB for number in range(count)}
