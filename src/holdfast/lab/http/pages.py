"""The pool's answers that are not results: HTML error pages and bare heads, header by header as a pool sends them."""

from __future__ import annotations

from html import escape

__all__ = [
    "bad_request",
    "bare_forbidden",
    "bare_internal_error",
    "file_missing",
    "forbidden",
    "handler_failure",
    "head_too_large",
    "internal_error",
    "not_found",
    "not_implemented",
    "options",
    "plain_head",
    "request_timeout",
    "rpc_answer",
    "text_missing",
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


def _answer_head(length_bytes: int, *headers: str, version: str, is_keep_alive: bool) -> bytes:
    connection = "connection: keep-alive" if is_keep_alive else "connection: close"
    return _head(f"HTTP/{version} 200 OK", [f"content-length: {length_bytes}", connection, _NO_CACHE, *headers])


def rpc_answer(body: bytes, *, content_type: str, version: str = "1.1", is_keep_alive: bool = True) -> bytes:
    """Return the answer to a call."""
    headers = (f"content-type: {content_type}", _ORIGIN, "Access-Control-Allow-Headers: X-Requested-With")
    return _answer_head(len(body), *headers, version=version, is_keep_alive=is_keep_alive) + body


def options(*, wanted: str | None = None, version: str = "1.1", is_keep_alive: bool = True) -> bytes:
    """Return the answer to a browser's preflight; ``wanted`` are the headers that it would like to send."""
    allowed = f"{wanted}, X-Requested-With" if wanted is not None else "X-Requested-With"
    headers = (_ORIGIN, f"Access-Control-Allow-Headers: {allowed}", "Access-Control-Allow-Methods: PUT")
    return _answer_head(0, *headers, version=version, is_keep_alive=is_keep_alive)


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


def forbidden(*, version: str = "1.1") -> bytes:
    """Return the page for a path that nobody serves, or that the user may not use."""
    return _page(
        f"HTTP/{version} 403 Forbidden", "HTTP 403 forbidden", "Access to the requested resource is forbidden."
    )


def unauthorised(realm: str, *, version: str = "1.1") -> bytes:
    """Return the page for missing or wrong credentials; ``realm`` is the handler's name."""
    return _page(
        f"HTTP/{version} 401 Unauthorised",
        "HTTP 401 unauthorised",
        "Please check your credentials and retry.",
        f'WWW-Authenticate: Basic realm="{realm}"',
    )


def request_timeout() -> bytes:
    """Return the page for a request that does not come to its end."""
    return _page("HTTP/1.1 408 Request Timeout", "HTTP 408 request timeout", "Timed out waiting for the request.")


def head_too_large() -> bytes:
    """Return the page for a head that is longer than the pool takes."""
    title = "HTTP 431 request header fields too large"
    return _page("HTTP/1.1 431 Request Header Fields Too Large", title, "Exceeded the maximum header size.")


def file_missing(path: str) -> bytes:
    """Return what the pool's file server says to a name that it does not have."""
    text = f"<p>The requested URL {escape(path)} was not found on this server.</p>"
    body = f"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1>{text}</body></html>".encode()
    return _head("HTTP/1.1 404 Not Found", [f"content-length: {len(body)}", "connection: close", _NO_CACHE]) + body


def text_missing(text: str) -> bytes:
    """Return what the pool says instead of something that it does not have."""
    body = text.encode()
    return _head("HTTP/1.1 404 Not Found", [f"content-length: {len(body)}", "connection: close", _NO_CACHE]) + body


def not_implemented(method: str, *, version: str = "1.1") -> bytes:
    """Return the page for a method that the pool does not know."""
    text = f"<p>Unknown {method} not supported.<br /></p>"
    return _page(f"HTTP/{version} 501 Method not implemented", "HTTP 501 Method Not Implemented", text)


def internal_error(text: str, *, version: str = "1.1", is_escaped: bool = False) -> bytes:
    """Return the page for an exception; ``text`` is how the pool prints it, escaped here unless it goes as it is."""
    return bare_internal_error(text if is_escaped else escape(text).replace("&#x27;", "&apos;"), version=version)


def bare_internal_error(printed: str, *, version: str = "1.1") -> bytes:
    """Return the page for an error that the pool tells in its own words."""
    message = (
        "An unexpected error occurred; please wait a while and try again. "
        "If the problem persists, please contact your support representative."
        f"<h1> Additional information </h1>{printed}"
    )
    return _page(f"HTTP/{version} 500 Internal Error", "HTTP 500 internal server error", message)
