"""The description of VMs that exports carry: a tar with one member, ``ova.xml``, which lists records.

References become names of the file (``Ref:7``); what is not in the file becomes null. Invariant: what ``pack`` wrote,
``read`` returns equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from holdfast.core import MIB
from holdfast.lab.errors import ApiFailure
from holdfast.lab.http import Connection
from holdfast.lab.rpc import MalformedCall, parse_value, write_value

__all__ = ["OvaObject", "pack_ova", "read_ova"]

_RECORD_BYTES = 512
_OVA_BYTES_MAX = 64 * MIB
"""A description of a VM takes 20 KB; this is thousands of them."""


@dataclass(frozen=True, slots=True)
class OvaObject:
    """One record of the file."""

    cls: str
    id: str
    record: dict[str, object]


def pack_ova(objects: list[OvaObject], version: dict[str, object]) -> bytes:
    """Return the tar."""
    listed = [{"class": each.cls, "id": each.id, "snapshot": each.record} for each in objects]
    body = write_value({"version": version, "objects": listed}).encode("utf-8", "replace")
    padding = bytes(-len(body) % _RECORD_BYTES)
    return _tar_head("ova.xml", len(body)) + body + padding + bytes(2 * _RECORD_BYTES)


def _tar_head(name: str, length_bytes: int) -> bytes:
    """Return an old header: no magic, no type, owner root, readable by its owner."""
    head = bytearray(_RECORD_BYTES)
    head[: len(name)] = name.encode()
    head[100:108] = b"0000400\0"
    head[108:124] = b"0000000\0" * 2
    head[124:136] = b"%011o\0" % length_bytes
    head[136:148] = b"%011o\0" % 0
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def read_ova(connection: Connection) -> list[OvaObject]:
    """Return the records of an upload. The pool's own exceptions as ``ApiFailure`` when it is none."""
    head = bytearray(_RECORD_BYTES)
    if connection.readinto_fully(memoryview(head)) < _RECORD_BYTES:
        raise ApiFailure("INTERNAL_ERROR", "End_of_file")
    if bytes(head[:100]).rstrip(b"\0") != b"ova.xml":
        raise ApiFailure("IMPORT_ERROR_UNEXPECTED_FILE", "ova.xml", head[:100].rstrip(b"\0").decode("latin-1"))
    try:
        length_bytes = int(head[124:136].strip(b"\0 ") or b"0", 8)
    except ValueError as cause:
        raise ApiFailure("INTERNAL_ERROR", 'Failure("int_of_string")') from cause
    if length_bytes > _OVA_BYTES_MAX:
        raise ApiFailure("INTERNAL_ERROR", "End_of_file")
    body = bytearray(length_bytes)
    if connection.readinto_fully(memoryview(body)) < length_bytes:
        raise ApiFailure("INTERNAL_ERROR", "End_of_file")
    return _parse(bytes(body))


def _parse(body: bytes) -> list[OvaObject]:
    try:
        document = cast("dict[str, object]", parse_value(body))
        listed = cast("list[dict[str, object]]", document["objects"])
        return [
            OvaObject(str(each["class"]), str(each["id"]), cast("dict[str, object]", each["snapshot"]))
            for each in listed
        ]
    except MalformedCall as cause:
        raise ApiFailure("INTERNAL_ERROR", str(cause)) from cause
    except (KeyError, TypeError) as cause:
        raise ApiFailure("INTERNAL_ERROR", "Not_found") from cause
