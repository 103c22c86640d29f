"""The BIOS strings of VMs: which can be chosen, and what a VM has that was told none."""

from __future__ import annotations

from holdfast.lab.context import CallSet, Context
from holdfast.lab.errors import ApiFailure

__all__ = ["calls", "generic_bios_strings"]

calls = CallSet()

_VALUE_CHARACTERS_MAX = 512
_GENERIC = {
    "bios-vendor": "Xen",
    "bios-version": "",
    "system-manufacturer": "Xen",
    "system-product-name": "HVM domU",
    "system-version": "",
    "system-serial-number": "",
    "baseboard-manufacturer": "",
    "baseboard-product-name": "",
    "baseboard-version": "",
    "baseboard-serial-number": "",
    "baseboard-asset-tag": "",
    "baseboard-location-in-chassis": "",
    "enclosure-asset-tag": "",
    "hp-rombios": "",
    "oem-1": "Xen",
    "oem-2": "MS_VM_CERT/SHA1/bdbeb6e0a816d43fa6d3fe8aaef04c2bad9d3e3d",
}
_FIXED = frozenset({"hp-rombios", "oem-1", "oem-2"})
"""What a VM has but nobody can choose."""


def generic_bios_strings() -> dict[str, str]:
    """Return the strings of a VM that was told none."""
    return dict(_GENERIC)


@calls.on("VM.set_bios_strings")
def set_bios_strings(context: Context, vm: str, value: dict[str, str]) -> str:
    """Give the VM its BIOS strings, once."""
    db = context.db
    if db.mapping("VM", vm, "bios_strings"):
        raise ApiFailure("VM_BIOS_STRINGS_ALREADY_SET")
    for key, text in value.items():
        _check(key, text)
    db.set("VM", vm, "bios_strings", {**_GENERIC, **value})
    return ""


def _check(key: str, text: str) -> None:
    if key not in _GENERIC or key in _FIXED:
        raise ApiFailure("INVALID_VALUE", key, "Unknown key")
    if not text:
        raise ApiFailure("INVALID_VALUE", key, "Value provided is empty")
    if len(text.encode()) > _VALUE_CHARACTERS_MAX:
        raise ApiFailure("INVALID_VALUE", key, f"{text} has length more than {_VALUE_CHARACTERS_MAX} characters")
    if not all(" " <= character <= "~" for character in text):
        raise ApiFailure("INVALID_VALUE", key, f"{text} has non-printable ASCII characters")


@calls.on("VM.copy_bios_strings")
def copy_bios_strings(context: Context, vm: str, host: str) -> str:
    """Give the VM the host's strings, and let it prefer that host."""
    db = context.db
    if db.mapping("VM", vm, "bios_strings"):
        raise ApiFailure("VM_BIOS_STRINGS_ALREADY_SET")
    strings = db.mapping("host", host, "bios_strings")
    db.update("VM", vm, {"bios_strings": dict(strings), "affinity": host})
    return ""
