"""Device numbers of virtual disks: what the names that clients give stand for, and which are free.

A plain number may be an emulated drive or a paravirtual one; a name says which. Two disks of a VM clash when any
reading of one is a reading of the other. Invariant: every name that the pool accepts has at most two readings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.lab.database import Database

__all__ = ["DeviceNumber", "free_devices", "is_valid_device", "linux_name", "readings", "used_devices"]

_DISKS_MAX = (1 << 20) - 1
_EMULATED_DRIVES = 4
_PREFIXES = (("xvd", "xen"), ("sd", "scsi"), ("fd", "floppy"), ("hd", "ide"))
_LETTERS = re.compile(r"([a-z]*)([0-9]*)")
_NUMBERED = re.compile(r"d([0-9]+)(?:p([0-9]+))?")
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:0[uU])?[0-9][0-9_]*)")
_INTEGER_MAX = (1 << 62) - 1
"""The pool's own integers have 63 bits."""


@dataclass(frozen=True, slots=True)
class DeviceNumber:
    """A place on a bus; some that names stand for exist on no machine."""

    bus: str
    disk: int
    partition: int = 0


def readings(name: str) -> set[DeviceNumber]:
    """Return what the name can stand for."""
    return {found for is_emulated in (True, False) if (found := _read(name, is_emulated=is_emulated)) is not None}


def used_devices(db: Database, vm: str) -> set[DeviceNumber]:
    """Return every reading of every name that the VM's disks have."""
    rows = [db.row("VBD", vbd).fields for vbd in db.texts("VM", vm, "VBDs")]
    return {found for row in rows for name in ("device", "userdevice") for found in readings(str(row[name]))}


def free_devices(db: Database, vm: str, *, is_floppy: bool = False) -> list[DeviceNumber]:
    """Return the places that the VM has left, lowest first."""
    fields = db.row("VM", vm).fields
    is_emulated = fields["domain_type"] == "hvm"
    used = used_devices(db, vm)
    if is_floppy:
        places = [DeviceNumber("floppy", number) for number in range(2)]
    else:
        count = 256 if fields["is_control_domain"] and not is_emulated else 255
        places = [_place(number, is_emulated=is_emulated) for number in range(count)]
    return [place for place in places if place not in used]


def is_valid_device(name: str, *, is_floppy: bool) -> bool:
    """Whether the pool accepts the name: any whole number does for a disk, even one without a place."""
    if name == "autodetect" or _read(name, is_emulated=False) is not None:
        return True
    return not is_floppy and _INTEGER.fullmatch(name) is not None and abs(_whole(name)) <= _INTEGER_MAX


def linux_name(device: DeviceNumber) -> str:
    """Return the name that the guest gives the disk."""
    letters, number = "", device.disk
    while number >= 0:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
    prefix = {"scsi": "sd", "floppy": "fd"}.get(device.bus, "xvd")
    return f"{prefix}{letters}{device.partition or ''}"


def _place(number: int, *, is_emulated: bool) -> DeviceNumber:
    return DeviceNumber("ide" if is_emulated and number < _EMULATED_DRIVES else "xen", number)


def _read(name: str, *, is_emulated: bool) -> DeviceNumber | None:
    if _INTEGER.fullmatch(name):
        number = _whole(name)
        if 0 <= number <= _DISKS_MAX:
            return _place(number, is_emulated=is_emulated)
        return None
    for prefix, bus in _PREFIXES:
        if name.startswith(prefix):
            return _read_letters(name.removeprefix(prefix), bus)
    match = _NUMBERED.fullmatch(name)
    return None if match is None else _numbered("xen", int(match[1]), match[2])


def _whole(name: str) -> int:
    sign = -1 if name.startswith("-") else 1
    plain = name.lstrip("+-").replace("_", "").lower().replace("0u", "", 1)
    base = {"x": 16, "b": 2, "o": 8}.get(plain[1:2].lower(), 10) if plain.startswith("0") else 10
    return sign * int(plain[2:] if base != 10 else plain, base)


def _read_letters(rest: str, bus: str) -> DeviceNumber | None:
    match = _LETTERS.fullmatch(rest)
    if match is None:
        return None
    number = 0
    for letter in match[1]:
        number = number * 26 + ord(letter) - ord("a") + 1
    # The pool counts from one, takes one away, and looks at no limit: a bare "xvd" is the place before the first.
    return _numbered(bus, number - 1, match[2])


def _numbered(bus: str, disk: int, partition: str | None) -> DeviceNumber | None:
    number = int(partition or 0)
    return DeviceNumber(bus, disk, number) if max(disk, number) <= _INTEGER_MAX else None
