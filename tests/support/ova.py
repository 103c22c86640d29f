"""Descriptions of VMs in an archive, as a pool exports them, for tests that make one by hand."""

from __future__ import annotations

from holdfast.formats.xva import XvaWriter
from holdfast.lab.rpc import write_value

__all__ = ["OvaRecord", "pack_ova"]

OvaRecord = tuple[str, str, dict[str, object]]
"""Class, name in the file, fields."""


def pack_ova(objects: list[OvaRecord], version: dict[str, object]) -> bytes:
    """Return an archive that holds nothing but the description."""
    listed = [{"class": cls, "id": name, "snapshot": record} for cls, name, record in objects]
    body = write_value({"version": version, "objects": listed}).encode()
    writer = XvaWriter()
    return b"".join(bytes(piece) for piece in [*writer.description(body, time_s=0), *writer.end()])
