"""A stream that is read forward only, with a memory of its last bytes.

A pool that fails in the middle of an export stops the data and appends a whole HTTP response to the body. Only the end
of what was received tells this from a cut line, so the last bytes are kept until the stream is judged.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Protocol

from holdfast.core import KIB, limits
from holdfast.formats.vhd.errors import VhdDamaged, VhdError, VhdInterrupted, VhdTruncated

__all__ = ["ERROR_PAGE_BYTES_MAX", "ByteStream", "ErrorPage", "ForwardReader", "find_error_page"]

ERROR_PAGE_BYTES_MAX = 8 * KIB
"""XAPI's error pages are below 1 KiB; an exception's text may make them longer."""
_SKIP_BYTES = 64 * KIB
_MESSAGE_CHARACTERS_MAX = 1000

_EMBEDDED_RESPONSE = re.compile(rb"HTTP/1\.[01] (?P<status>[45]\d\d [ -~]{0,80})\r?\n[\t\r\n -~\x80-\xff]*\Z")
_EXCUSE = re.compile(r"^.*Additional information", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_SPACE = re.compile(r"\s+")


class ByteStream(Protocol):
    """Where a stream comes from: an HTTP body, a pipe, an open file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill some of the buffer and return how much; 0 at the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPage:
    """What a pool wrote into the body of an export instead of the rest of it."""

    length_bytes: int
    """How much of the end it takes."""
    status: str
    message: str


def find_error_page(end: bytes) -> ErrorPage | None:
    """Return the pool's own words when the end of a body is an error page; of whatever format the body is."""
    found = _EMBEDDED_RESPONSE.search(end)
    if found is None:
        return None
    page = found.group()
    return ErrorPage(length_bytes=len(page), status=found["status"].decode("ascii").strip(), message=_readable(page))


class ForwardReader:
    """Exact reads from a ``ByteStream``, counting."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._recent = b""
        self.offset_bytes = 0

    def fill(self, view: memoryview) -> int:
        """Read until the view is full or the stream ends, and return how much was read."""
        filled = 0
        while filled < len(view):
            got = self._stream.readinto(view[filled:])
            if not got:
                break
            filled += got
        self.offset_bytes += filled
        self._remember(view[:filled])
        return filled

    def fill_whole(self, view: memoryview, *, expected: str) -> None:
        """Fill the view, or raise ``VhdTruncated``."""
        if self.fill(view) != len(view):
            raise VhdTruncated(self.offset_bytes, expected=expected)

    def take(self, length_bytes: int, *, expected: str) -> bytes:
        """Return exactly that many bytes, or raise ``VhdTruncated``."""
        data = bytearray(length_bytes)
        self.fill_whole(memoryview(data), expected=expected)
        return bytes(data)

    def skip_to(self, offset_bytes: int, *, expected: str) -> None:
        """Read and drop what lies before an offset; refuse a gap longer than any VHD has."""
        gap_bytes = offset_bytes - self.offset_bytes
        if gap_bytes < 0:
            raise VhdDamaged(
                offset_bytes, f"{expected} lies in front of byte {self.offset_bytes}, where it must follow"
            )
        if gap_bytes > limits.VHD_GAP_BYTES_MAX:
            raise VhdDamaged(self.offset_bytes, f"{gap_bytes} unused bytes in front of {expected}")
        scratch = memoryview(bytearray(min(gap_bytes, _SKIP_BYTES)))
        while self.offset_bytes < offset_bytes:
            self.fill_whole(scratch[: offset_bytes - self.offset_bytes], expected=expected)

    def explained(self, error: VhdError) -> VhdError:
        """Return the pool's own message as a ``VhdInterrupted`` when the stream ends in one, else the error given."""
        if isinstance(error, VhdDamaged) and b"HTTP/1." in self._recent:
            # The message may have begun inside what was refused; its end tells. A pool sends nothing after it.
            self.fill(memoryview(bytearray(ERROR_PAGE_BYTES_MAX)))
        page = find_error_page(self._recent)
        if page is None:
            return error
        return VhdInterrupted(self.offset_bytes - page.length_bytes, status=page.status, message=page.message)

    def _remember(self, view: memoryview) -> None:
        if len(view) >= ERROR_PAGE_BYTES_MAX:
            self._recent = bytes(view[-ERROR_PAGE_BYTES_MAX:])
        elif view:
            self._recent = (self._recent + bytes(view))[-ERROR_PAGE_BYTES_MAX:]


def _readable(response: bytes) -> str:
    """Return the sentence that an error page was made for, without its markup."""
    text = response.decode("utf-8", errors="replace")
    body = text.partition("\r\n\r\n")[2] or text
    plain = html.unescape(_TAG.sub(" ", _EXCUSE.sub("", body)))
    return _SPACE.sub(" ", plain).strip()[:_MESSAGE_CHARACTERS_MAX]
