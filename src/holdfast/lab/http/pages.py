"""The pool's answers that are not results: HTML error pages and bare heads, header by header as a pool sends them."""

from __future__ import annotations

from html import escape

__all__ = [
    "bad_request",
    "bare_forbidden",
    "forbidden",
    "handler_failure",
    "internal_error",
    "not_found",
    "not_implemented",
    "options",
    "plain_head",
    "rpc_answer",
    "unauthorised",
]

_NO_CACHE = "cache-control: no-cache, no-store"
_ORIGIN = "Access-Control-Allow-Origin: *"


def _head(status: str, headers: list[str]) -> bytes:
    return "\r\n".join([status, *headers, "", ""]).encode("latin-1", "replace")


def _page(status: str, title: str, text: str, *extra: str) -> bytes:
    body = f"<html><body><h1>{title}</h1>{text}</body></html>".encode()
    headers = [f"content-length: {len(body)}", "content-type: text/html", "connection: close", _NO_CACHE, *extra]
    return _head(status, headers) + body


def rpc_answer(body: bytes, *, content_type: str) -> bytes:
    """Return the answer to a call; the connection stays open."""
    headers = [
        f"content-length: {len(body)}",
        "connection: keep-alive",
        _NO_CACHE,
        f"content-type: {content_type}",
        _ORIGIN,
        "Access-Control-Allow-Headers: X-Requested-With",
    ]
    return _head("HTTP/1.1 200 OK", headers) + body


def options() -> bytes:
    """Return the answer to a browser's preflight."""
    headers = [
        "content-length: 0",
        "connection: keep-alive",
        _NO_CACHE,
        _ORIGIN,
        "Access-Control-Allow-Headers: X-Requested-With",
        "Access-Control-Allow-Methods: PUT",
    ]
    return _head("HTTP/1.1 200 OK", headers)


def plain_head(status: str, *extra: str) -> bytes:
    """Return a head as the data handlers send it: no length, the connection's end is the body's end."""
    return _head(status, ["Connection: close", "Cache-Control: no-cache, no-store", *extra])


def not_found() -> bytes:
    """Return what a data handler says to a format or encoding it does not know."""
    return plain_head("HTTP/1.0 404 Not Found")


def bad_request(*, version: str = "1.1") -> bytes:
    """Return what a data handler says to a request it will not serve."""
    return plain_head(f"HTTP/{version} 400 Bad Request")


def bare_forbidden() -> bytes:
    """Return what the import of VMs says to a body whose encoding it does not know."""
    return plain_head("HTTP/1.1 403 Forbidden")


def handler_failure() -> bytes:
    """Return what the export of descriptions says before the page for its exception follows."""
    return _head("HTTP/1.1 500 internal error", ["content-length: 0"])


def forbidden() -> bytes:
    """Return the page for a path that nobody serves."""
    return _page("HTTP/1.1 403 Forbidden", "HTTP 403 forbidden", "Access to the requested resource is forbidden.")


def unauthorised(realm: str, *, version: str = "1.1") -> bytes:
    """Return the page for missing or wrong credentials; ``realm`` is the handler's name."""
    return _page(
        f"HTTP/{version} 401 Unauthorised",
        "HTTP 401 unauthorised",
        "Please check your credentials and retry.",
        f'WWW-Authenticate: Basic realm="{realm}"',
    )


def not_implemented(method: str) -> bytes:
    """Return the page for a method that the pool does not know."""
    text = f"<p>Unknown {escape(method)} not supported.<br /></p>"
    return _page("HTTP/1.1 501 Method not implemented", "HTTP 501 Method Not Implemented", text)


def internal_error(text: str, *, version: str = "1.1", is_escaped: bool = False) -> bytes:
    """Return the page for an exception; ``text`` is how the pool prints it, escaped here unless it goes as it is."""
    printed = text if is_escaped else escape(text).replace("&#x27;", "&apos;")
    message = (
        "An unexpected error occurred; please wait a while and try again. "
        "If the problem persists, please contact your support representative."
        f"<h1> Additional information </h1>{printed}"
    )
    return _page(f"HTTP/{version} 500 Internal Error", "HTTP 500 internal server error", message)
