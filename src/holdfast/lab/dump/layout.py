"""How a dump is built: its tables and the columns that no API shows, with the version that both sides must share."""

from __future__ import annotations

from holdfast.lab.datamodel import NULL_REF

__all__ = ["EMPTY_TABLES", "HIDDEN_COLUMNS", "SCHEMA_MAJOR", "SCHEMA_MINOR", "protect", "unprotect"]

SCHEMA_MAJOR = 5
SCHEMA_MINOR = 909
"""As a pool of our datamodel writes them; a restore wants both equal."""

EMPTY_TABLES = frozenset({"event", "message", "role", "session", "task"})
"""Tables whose rows are kept elsewhere, or end with the process: a dump names them and that is all."""

HIDDEN_COLUMNS: dict[str, dict[str, str]] = {
    "PCI": {
        "attached_VMs": "()",
        "functions": "1",
        "physical_function": NULL_REF,
        "scheduled_to_be_attached_to": NULL_REF,
        "virtual_functions": "()",
    },
    "PGPU": {"size": "1048576"},
    "PIF": {"device_name": ""},
    "SM": {"host_pending_features": "()"},
    "SR": {"default_vdi_visibility": "true"},
    "VBD": {"reserved": "false"},
    "VGPU_type": {"internal_config": "()", "size": "0"},
    "VIF": {"reserved": "false", "reserved_pci": NULL_REF},
    "VM": {"recommended_guidances": "()"},
    "VTPM": {"contents": NULL_REF},
    "console": {"port": "0"},
    "crashdump": {"filename": ""},
    "host": {"boot_free_mem": "0", "recommended_guidances": "()"},
    "host_patch": {"filename": ""},
    "pool": {"wlb_password": NULL_REF},
    "pool_patch": {"filename": ""},
}
"""Columns of the database that the API does not have, with what they hold in a pool that does not use them."""

_PROTECTED = {"%": "%%", " ": "%.", "\t": "%t", "\n": "%n", "\r": "%r"}
_PROTECTING = str.maketrans(_PROTECTED)
_PLAIN = {".": " ", "_": " ", "t": "\t", "n": "\n", "r": "\r", "%": "%"}


def protect(text: str) -> str:
    """Return a value safe from what XML does to white space in attributes."""
    return text.translate(_PROTECTING)


def unprotect(text: str) -> str:
    """Return what ``protect`` was given; a percent sign before anything else stands for itself."""
    first, *rest = text.split("%")
    pieces = [first]
    at = 0
    while at < len(rest):
        piece = rest[at]
        if piece == "" and at + 1 < len(rest):
            pieces += ["%", rest[at + 1]]
            at += 2
            continue
        pieces.append(_PLAIN[piece[0]] + piece[1:] if piece[:1] in _PLAIN else "%" + piece)
        at += 1
    return "".join(pieces)
