"""The faults that a transfer can meet on its way, in one place between the handler and the socket.

A connection that shall fail counts the bytes of the body, out for an export and in for an import, and lets its faults
happen at their byte. Invariant: a fault counts as fired when its byte is reached, not before; without an armed fault
the connection is the plain one.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.lab.context import PoolCore
from holdfast.lab.errors import internal_failure
from holdfast.lab.faults import ArmedFault
from holdfast.lab.http import Connection, Disconnected, Request

__all__ = ["Truncated", "faulty_connection", "with_faults"]

Piece = bytes | bytearray | memoryview

_TABLE_OFFSET_BYTES = 2048
_HEAD_END = b"\r\n\r\n"
_EXPORT_FAULTS = ("export-cut", "export-fails-late", "export-truncated", "export-stalls", "export-slow", "session-ends")
_IMPORT_FAULTS = ("import-cut", "import-stalls", "import-slow", "session-ends")
_PACE_STEP_S = 0.1
"""A slow connection sends what fits into this time, then waits that long."""


class Truncated(Exception):
    """The export shall end here as if it were complete."""


def faulty_connection(pool: PoolCore, request: Request, connection: Connection, *, session: str) -> Connection:
    """Return the connection for a transfer: the plain one, or one that fails as the armed faults say."""
    path = request.path.rstrip("/")
    is_export = request.method == "GET"
    names = _EXPORT_FAULTS if is_export else _IMPORT_FAULTS
    meant = [fault for fault in pool.faults.armed() if fault.name in names and fault.parameters["path"] in ("", path)]
    return _FaultyConnection(connection, _Script(pool, meant, session), is_export=is_export) if meant else connection


class _Script:
    """What shall happen at which byte of one transfer."""

    def __init__(self, pool: PoolCore, faults: list[ArmedFault], session: str) -> None:
        self._pool = pool
        self._session = session
        self._due = sorted(faults, key=_after_bytes)
        self._bytes_per_s: int | None = None

    def room(self, done_bytes: int) -> int | None:
        """Return how many bytes may pass before something happens; None when nothing will."""
        rooms = [_after_bytes(fault) - done_bytes for fault in self._due[:1]]
        if self._bytes_per_s is not None:
            rooms.append(max(1, int(self._bytes_per_s * _PACE_STEP_S)))
        return min(rooms, default=None)

    def happen(self, done_bytes: int) -> None:
        """Let happen what is due at this byte."""
        while self._due and _after_bytes(self._due[0]) <= done_bytes:
            fault = self._due.pop(0)
            if self._pool.faults.take_this(fault):
                self._happen(fault)

    def pace(self, passed_bytes: int) -> None:
        """Wait as long as so many bytes take on a slow connection."""
        if self._bytes_per_s is not None:
            self._pool.clock.sleep(passed_bytes / self._bytes_per_s)

    def _happen(self, fault: ArmedFault) -> None:
        match fault.name.partition("-")[2]:
            case "stalls":
                self._pool.clock.sleep(fault.seconds())
            case "slow":
                self._bytes_per_s = max(1, fault.number("bytes_per_s"))
            case "ends":
                self._pool.sessions.close(self._session)
            case "fails-late":
                raise internal_failure("End_of_file")
            case "truncated":
                raise Truncated
            case _:
                raise Disconnected


def _after_bytes(fault: ArmedFault) -> int:
    return int(fault.parameters.get("after_bytes", 0))


class _FaultyConnection(Connection):
    """The same socket, with trouble."""

    def __init__(self, plain: Connection, script: _Script, *, is_export: bool) -> None:
        super().__init__(plain.sock, peer=plain.peer)
        self._early = plain._early
        self._script = script
        self._is_export = is_export
        self._is_in_head = True
        self._done_bytes = 0

    def send(self, data: Piece) -> None:
        """See ``Connection.send``; the body of an export is counted from behind the head."""
        view = memoryview(data)
        if not self._is_export:
            super().send(view)
            return
        if self._is_in_head:
            at = bytes(view).find(_HEAD_END)
            body_at = len(view) if at < 0 else at + len(_HEAD_END)
            super().send(view[:body_at])
            self._is_in_head = at < 0
            view = view[body_at:]
        while len(view):
            length_bytes = self._allowed(len(view))
            super().send(view[:length_bytes])
            self._passed(length_bytes)
            view = view[length_bytes:]

    def readinto(self, view: memoryview) -> int:
        """See ``Connection.readinto``; the body of an import is counted from its first byte."""
        if self._is_export or not len(view):
            return super().readinto(view)
        count = super().readinto(view[: self._allowed(len(view))])
        self._passed(count)
        return count

    def _allowed(self, length_bytes: int) -> int:
        """Let happen what is due, and return how much of so many bytes may pass before the next trouble."""
        try:
            self._script.happen(self._done_bytes)
        except Disconnected:
            self.reset()
            raise
        room = self._script.room(self._done_bytes)
        return length_bytes if room is None else min(length_bytes, room)

    def _passed(self, length_bytes: int) -> None:
        self._done_bytes += length_bytes
        self._script.pace(length_bytes)


def with_faults(pool: PoolCore, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces of a VHD; an armed fault damages its block table."""
    if pool.faults.take("export-lies"):
        pieces = _with_damaged_table(pieces)
    return pieces


def _with_damaged_table(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Let the first allocated block claim a place far behind the end."""
    is_first = True
    for piece in pieces:
        if is_first and len(piece) > _TABLE_OFFSET_BYTES:
            head = bytearray(piece)
            for at in range(_TABLE_OFFSET_BYTES, len(head), 4):
                if head[at : at + 4] != b"\xff\xff\xff\xff":
                    head[at : at + 4] = b"\x00\xff\xff\xff"
                    break
            piece = head
        is_first = False
        yield piece
