"""One HTTP request as the pool reads it: the first value of a repeated query key counts, cookies are joined loosely.

The parser is deliberately as forgiving and as strange as the real one; what it cannot read at all is a ``BadRequest``.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

from holdfast.lab.datamodel import parse_whole
from holdfast.lab.http import pages

__all__ = ["HEAD_BYTES_MAX", "HEAD_BYTES_MIN", "BadRequest", "Request", "parse_head"]

HEAD_BYTES_MAX = 1006
"""The pool's own limit on a head, the empty line included: a buffer of 1 KiB less the smallest request."""

HEAD_BYTES_MIN = 18
"""The pool reads so much before it looks at anything; less than that and no more is answered with nothing."""

_VERSION = re.compile(r"0*1\.0+(?:\D|$)")


class BadRequest(Exception):
    """The bytes are no request; the connection is closed after ``page``, which is empty when nothing is to be said."""

    def __init__(self, page: bytes) -> None:
        super().__init__(page[:40])
        self.page = page


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. The body is still on the connection."""

    method: str
    path: str
    query: dict[str, str]
    version: str
    """``1.0`` or ``1.1``, as answers repeat it."""
    headers: dict[str, str]
    cookies: dict[str, str]
    is_keep_alive: bool
    """Whether the client wants to go on with this connection."""
    content_length: int | None
    """The announced length of the body, or None when nothing was announced. It may be negative."""

    @property
    def basic_credentials(self) -> tuple[str, str] | None:
        """User and password of an ``Authorization: Basic`` header."""
        header = self.headers.get("authorization", "")
        if not header.startswith("Basic "):
            return None
        try:
            user, colon, password = base64.b64decode(header[6:], validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        return (user, password) if colon else None

    def parameter(self, name: str) -> str | None:
        """Return a value that may come as a cookie or in the query; the cookie wins."""
        return self.cookies.get(name, self.query.get(name))


def parse_head(head: bytes) -> Request:
    """Return the request whose head is ``head``, the empty line left out. ``BadRequest`` when it is none."""
    first, *lines = head.decode("latin-1").split("\n")
    parts = first.split()
    if len(parts) != 3:
        raise BadRequest(pages.bare_internal_error("The HTTP headers could not be parsed."))
    method, target, version = parts
    if len(version) < len("HTTP/"):
        raise BadRequest(pages.internal_error('Invalid_argument("String.sub / Bytes.sub")'))
    is_keep_alive = version[5:] != "1.0"
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, text = line.partition(":")
        if not colon:
            continue
        value = text.strip()
        headers[name.lower()] = value
        if name.lower() == "connection" and value.lower() in ("close", "keep-alive"):
            is_keep_alive = value.lower() == "keep-alive"
    path, _, query = _without_authority(target).partition("#")[0].partition("?")
    return Request(
        method=method,
        path=unquote(path),
        query=_parse_query(query),
        version="1.0" if _VERSION.match(version[5:]) else "1.1",
        headers=headers,
        cookies=_parse_cookies(headers.get("cookie", "")),
        is_keep_alive=is_keep_alive,
        content_length=_parse_length(headers.get("content-length")),
    )


def _parse_length(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_whole(text)
    except ValueError as cause:
        raise BadRequest(pages.internal_error('Failure("Int64.of_string")')) from cause


_BEFORE_PATH = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://[^/?#]*)?")
"""RFC 3986, appendix B: a scheme and an authority, each optional; so what follows two slashes is no path."""


def _without_authority(target: str) -> str:
    before = _BEFORE_PATH.match(target)
    assert before is not None
    return target[before.end() :]


def _parse_query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        name, _, value = pair.partition("=")
        query.setdefault(unquote_plus(name), unquote_plus(value))
    return query


def _parse_cookies(text: str) -> dict[str, str]:
    """Split at ``;``, or at ``&`` when there is none, without trimming: a space after the separator belongs to the
    next name, as recorded from a real pool, so only the first cookie of a well-formed header is found by its name."""
    cookies: dict[str, str] = {}
    for pair in text.split(";" if ";" in text else "&") if text else ():
        name, _, value = pair.partition("=")
        cookies.setdefault(unquote(name), unquote(value))
    return cookies
