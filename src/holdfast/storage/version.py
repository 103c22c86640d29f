"""What a bucket that keeps versions holds under one name."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ObjectVersions", "Version"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of an object, or a delete marker."""

    name: str
    version: str
    length_bytes: int = 0
    is_marker: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersions:
    """All that lies under one name. ``first`` is the object; None where only delete markers are left."""

    name: str
    first: Version | None
    above: tuple[Version, ...]
    """Newest first: what hides or replaces the object for whoever does not ask for a version."""
