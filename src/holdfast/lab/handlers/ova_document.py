"""The description of VMs that exports carry: an XML document that lists records.

References become names of the file (``Ref:7``); what is not in the file becomes null. A document that is none is
refused with the words of the pool's own parsers. Invariant: what ``write_ova`` wrote, ``parse_ova`` returns equal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from holdfast.lab.datamodel import describe
from holdfast.lab.errors import ApiFailure, internal_failure, quoted
from holdfast.lab.rpc import MalformedCall, parse_value, write_value

__all__ = ["OvaDocument", "OvaObject", "OvaVersion", "parse_int", "parse_ova", "write_ova"]

_INT = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:0[uU])?[0-9][0-9_]*)")


@dataclass(frozen=True, slots=True)
class OvaObject:
    """One record of the file."""

    cls: str
    id: str
    record: object
    """A map of fields, if the file is sound."""


@dataclass(frozen=True, slots=True)
class OvaVersion:
    """Who wrote the file: what an import compares."""

    pool: tuple[int, int]
    archive: int
    """Above 0, every block has its checksum beside it; below 2, a table of them follows at the end."""


@dataclass(frozen=True, slots=True)
class OvaDocument:
    """A parsed description."""

    version: OvaVersion
    objects: list[OvaObject]


def write_ova(objects: list[OvaObject], version: dict[str, object]) -> bytes:
    """Return the document."""
    listed = [{"class": each.cls, "id": each.id, "snapshot": each.record} for each in objects]
    return write_value({"version": version, "objects": listed}).encode("utf-8", "replace")


def parse_ova(body: bytes) -> OvaDocument:
    """Return what the document says; the pool's own exceptions as ``ApiFailure`` when it says nothing."""
    try:
        value = parse_value(body)
    except MalformedCall as cause:
        raise ApiFailure("INTERNAL_ERROR", str(cause)) from cause
    # A version that cannot be read is told before anything else; what is missing, from the last field to the first.
    if isinstance(value, dict) and "version" in value:
        _parse_version(value["version"])
    objects = _field(value, "objects")
    if not isinstance(objects, list):
        raise internal_failure(f"Expecting Rpc.Enum, but found '{describe(objects)}'")
    listed = [_parse_object(each) for each in objects]
    return OvaDocument(_parse_version(_field(value, "version")), listed)


def _field(value: object, name: str) -> object:
    if not isinstance(value, dict):
        raise internal_failure(f"Expecting Rpc.Dict, but found '{describe(value)}'")
    if name not in value:
        raise internal_failure(f"Undefined field: Expecting '{name}'")
    return cast("dict[str, object]", value)[name]


def _parse_object(value: object) -> OvaObject:
    snapshot = _field(value, "snapshot")
    name = _string(_field(value, "id"))
    return OvaObject(_string(_field(value, "class")), name, snapshot)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise internal_failure(f"Expected string, got '{describe(value)}'")
    return value


def _parse_version(value: object) -> OvaVersion:
    if not isinstance(value, dict):
        raise _version_failure(f"version_of_rpc: malformed RPC {describe(value)}")
    fields = cast("dict[str, object]", value)

    def find(name: str) -> object:
        if name not in fields:
            raise _version_failure(f"Failed to find key '{name}' in version data")
        return fields[name]

    try:
        archive = parse_int(find("export_vsn"))
    except ApiFailure:
        archive = 0
    minor, major = parse_int(find("xapi_minor")), parse_int(find("xapi_major"))
    for name in ("build_number", "product_brand", "product_version", "date", "hostname"):
        _string(find(name))
    return OvaVersion((major, minor), archive)


def _version_failure(text: str) -> ApiFailure:
    return ApiFailure("INTERNAL_ERROR", f"Importexport.Failure({quoted(text)})")


def parse_int(value: object) -> int:
    """Return a number that may be spelled; the pool's conversion failure when it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise internal_failure(f"Expected int, got '{describe(value)}'")
    if not _INT.fullmatch(value):
        raise internal_failure("int_of_string")
    digits = re.sub(r"0[uU]|_", "", value)
    prefix = digits.lstrip("+-")[:2].lower()
    return int(digits, {"0x": 16, "0o": 8, "0b": 2}.get(prefix, 10))
