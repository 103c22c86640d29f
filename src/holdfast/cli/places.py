"""Places as people type them."""

from __future__ import annotations

from pathlib import Path

from holdfast.storage import is_smb_location, parse_smb_location

__all__ = ["remembered_location"]


def remembered_location(location: str) -> str:
    """Return a location as it is remembered: a path made absolute, a share in its one spelling, a URL as it is."""
    if is_smb_location(location):
        return parse_smb_location(location).location
    return location if "://" in location else str(Path(location).expanduser().absolute())
