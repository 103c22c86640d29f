"""Hex dumps for people: the bytes of a fixture, each field beside its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["Field", "annotated_dump"]

_BYTES_PER_LINE = 16

Field = tuple[int, str]
"""How many bytes, and what they are."""


def annotated_dump(data: bytes, fields: Sequence[Field]) -> str:
    """Return one line for each field, more for long ones; a run of equal bytes is told by its length.

    The fields must cover the data to its last byte, so that a dump cannot leave anything out.
    """
    lines: list[str] = []
    offset = 0
    for length_bytes, meaning in fields:
        lines += _lines(data[offset : offset + length_bytes], offset=offset, meaning=meaning)
        offset += length_bytes
    assert offset == len(data), f"the fields cover {offset} of {len(data)} bytes"
    return "\n".join(lines)


def _lines(data: bytes, *, offset: int, meaning: str) -> Iterator[str]:
    if len(data) > _BYTES_PER_LINE and len(set(data)) == 1:
        yield _line(offset, f"{data[0]:02x} × {len(data)}", meaning)
        return
    for start in range(0, len(data), _BYTES_PER_LINE):
        piece = data[start : start + _BYTES_PER_LINE]
        yield _line(offset + start, piece.hex(" "), meaning if start == 0 else "")


def _line(offset: int, content: str, meaning: str) -> str:
    return f"{offset:06x}  {content:<47}  {meaning}".rstrip()
