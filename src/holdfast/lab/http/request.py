"""One HTTP request as the pool reads it: the first value of a repeated query key counts, cookies are joined loosely.

The parser is deliberately as forgiving and as strange as the real one; what it cannot read at all is a ``BadRequest``.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import unquote_plus

__all__ = ["HEAD_BYTES_MAX", "BadRequest", "Request", "parse_head"]

HEAD_BYTES_MAX = 64 * 1024
"""A request head that is longer is hostile; ours stay under 2 KiB."""


class BadRequest(Exception):
    """The bytes are not a request; the connection is closed after a 400."""


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. The body is still on the connection."""

    method: str
    path: str
    query: dict[str, str]
    version: str
    headers: dict[str, str]
    cookies: dict[str, str]

    @property
    def content_length(self) -> int | None:
        """The announced length of the body, or None when nothing was announced."""
        text = self.headers.get("content-length")
        return int(text) if text is not None else None

    @property
    def is_keep_alive(self) -> bool:
        """Whether the client wants to go on with this connection."""
        wish = self.headers.get("connection", "").lower()
        return wish != "close" if self.version == "1.1" else wish == "keep-alive"

    @property
    def basic_credentials(self) -> tuple[str, str] | None:
        """User and password of an ``Authorization: Basic`` header."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            user, colon, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return (user, password) if colon else None

    def parameter(self, name: str) -> str | None:
        """Return a value that may come as a cookie or in the query; the cookie wins."""
        return self.cookies.get(name, self.query.get(name))


def parse_head(head: bytes) -> Request:
    """Return the request whose head is ``head``, the empty line left out. ``BadRequest`` when it is none."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest(lines[0][:80])
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(line[:80])
        headers[name.strip().lower()] = value.strip()
    if not headers.get("content-length", "0").isdigit():
        raise BadRequest("content-length")
    path, _, query = _without_authority(parts[1]).partition("?")
    return Request(
        method=parts[0],
        path=path,
        query=_parse_query(query),
        version=parts[2].removeprefix("HTTP/"),
        headers=headers,
        cookies=_parse_cookies(headers.get("cookie", "")),
    )


def _without_authority(target: str) -> str:
    if target.startswith(("http://", "https://")):
        _, _, rest = target.partition("://")
        _, slash, path = rest.partition("/")
        return slash + path
    return target


def _parse_query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for pair in text.split("&"):
        name, equals, value = pair.partition("=")
        if equals:
            query.setdefault(unquote_plus(name), unquote_plus(value))
    return query


def _parse_cookies(text: str) -> dict[str, str]:
    """Split at ``;`` and ``=`` without trimming: a space after the separator belongs to the next name, as recorded
    from a real pool, so only the first cookie of a well-formed header is found under its name."""
    cookies: dict[str, str] = {}
    for pair in text.replace("&", ";").split(";"):
        name, equals, value = pair.partition("=")
        if equals:
            cookies.setdefault(name, unquote_plus(value))
    return cookies
