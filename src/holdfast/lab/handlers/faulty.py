"""The faults that an export can meet on its way out, in one place between the disk and the socket."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.lab.errors import internal_failure
from holdfast.lab.handlers.transfer import Transfer
from holdfast.lab.http import Disconnected

__all__ = ["with_faults"]

Piece = bytes | bytearray | memoryview

_TABLE_OFFSET_BYTES = 2048


def with_faults(one: Transfer, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces; an armed fault damages, delays or ends them at its byte."""
    faults = one.pool.faults
    if faults.take("export-lies"):
        pieces = _with_damaged_table(pieces)
    stall = faults.take("export-stalls")
    if stall is not None:
        pieces = _stalled(one, pieces, after_bytes=stall.number("after_bytes"), duration_s=stall.seconds())
    for name in ("export-cut", "export-fails-late", "export-truncated"):
        fault = faults.take(name)
        if fault is not None:
            yield from _first_bytes(pieces, fault.number("after_bytes"))
            if name == "export-cut":
                raise Disconnected
            if name == "export-fails-late":
                raise internal_failure("End_of_file")
            return
    yield from pieces


def _first_bytes(pieces: Iterator[Piece], length_bytes: int) -> Iterator[Piece]:
    left_bytes = length_bytes
    for piece in pieces:
        if left_bytes <= 0:
            return
        yield piece[:left_bytes]
        left_bytes -= len(piece)


def _stalled(one: Transfer, pieces: Iterator[Piece], *, after_bytes: int, duration_s: float) -> Iterator[Piece]:
    sent_bytes = 0
    is_over = False
    for piece in pieces:
        if not is_over and sent_bytes + len(piece) > after_bytes:
            cut = max(0, after_bytes - sent_bytes)
            yield piece[:cut]
            one.pool.clock.sleep(duration_s)
            is_over = True
            yield piece[cut:]
        else:
            yield piece
        sent_bytes += len(piece)


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
