"""What the NBD server asks of its pool: whether it may serve, which disk a name means, and what shall go wrong.

Invariant: the server knows no sessions and no disks; whoever gives it an export is told once when it is over.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["NbdExport", "NbdFault", "NbdHooks", "NbdMode", "NoHooks", "parse_export_name"]


class NbdMode(enum.Enum):
    """What the pool's networks allow, looked at for every new connection."""

    TLS = "nbd"
    """Purpose ``nbd``: nothing is served before STARTTLS."""
    PLAIN = "insecure_nbd"
    """Purpose ``insecure_nbd``: STARTTLS is refused."""
    CLOSED = "none"
    """No purpose: every connection is dropped without a word."""


class NbdExport(Protocol):
    """One disk, opened for one connection."""

    @property
    def size_bytes(self) -> int:
        """Size of the disk; a multiple of 512."""
        ...

    def read_into(self, offset_bytes: int, view: memoryview) -> None:
        """Fill ``view``. Any error ends the connection without a reply."""
        ...

    def close(self) -> None:
        """The connection is over, for whatever reason; called exactly once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NbdFault:
    """Something that shall go wrong inside one piece of data. First the pause, then the end."""

    sent_first_bytes: int
    """So many bytes of the piece still go out before it happens."""
    stall_s: float = 0.0
    disconnects: bool = False


class NbdHooks(Protocol):
    """Faults on demand. Called from the connections' threads."""

    def admits(self) -> bool:
        """Whether a new connection is taken; it is closed at once otherwise, as when all are in use."""
        ...

    def fault(self, *, sent_bytes: int, length_bytes: int) -> NbdFault | None:
        """Return what happens in the next piece of ``length_bytes``; ``sent_bytes`` of data went before it."""
        ...


class NoHooks:
    """Nothing goes wrong."""

    def admits(self) -> bool:
        """See ``NbdHooks.admits``."""
        return True

    def fault(self, *, sent_bytes: int, length_bytes: int) -> NbdFault | None:
        """See ``NbdHooks.fault``."""
        return None


def parse_export_name(name: str) -> tuple[str, str] | None:
    """Return disk uuid and session of ``/<uuid>?session_id=<ref>``; ``None`` when the name has no such parts.

    As on a real host, the first character of the path is dropped whatever it is, and what a URL has before the path
    does not matter.
    """
    try:
        parts = urlsplit(name)
        sessions = parse_qs(parts.query).get("session_id", [])
    except ValueError:
        return None
    return (unquote(parts.path)[1:], sessions[0]) if sessions else None
