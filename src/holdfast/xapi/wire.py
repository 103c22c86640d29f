"""The XML-RPC wire: one ``XenAPI.Session`` (the vendor's SDK) over our own trusted transport, plain values on our side.

Invariant: ``Any`` ends here. What leaves is made of str, int, float, bool, list and dict; times stay XAPI's own text.
"""

from __future__ import annotations

import http.client
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.parsers.expat import ExpatError

import XenAPI

from holdfast.core import Cancellation
from holdfast.model import JsonValue
from holdfast.xapi.address import Credentials, PoolAddress
from holdfast.xapi.connection import PoolHttpConnection
from holdfast.xapi.errors import PoolAnswerInvalid, PoolConnectionLost
from holdfast.xapi.tls import TlsTrust

__all__ = ["RpcConnection", "RpcFailure", "SessionInvalid", "parse_task_result"]

_ORIGINATOR = "holdfast"


class RpcFailure(Exception):
    """XAPI's ``ErrorDescription``; the caller turns it into one of our errors. Never leaves the package."""

    def __init__(self, params: list[str]) -> None:
        super().__init__(*params)
        self.params = params


class SessionInvalid(Exception):
    """The session has ended; the caller logs in again. Never leaves the package."""


class RpcConnection:
    """One keep-alive connection for calls, used by one thread at a time."""

    def __init__(self, address: PoolAddress, trust: TlsTrust, *, timeout_s: float) -> None:
        self.address = address
        self._transport = _Transport(address, trust, timeout_s=timeout_s)
        self._proxy: Any = XenAPI.Session(address.url, transport=self._transport)

    def login(self, credentials: Credentials, *, timeout_s: float, cancel: Cancellation) -> str:
        """Return a fresh session reference."""
        with self._guarded("login", timeout_s=timeout_s, cancel=cancel):
            self._proxy.login_with_password(credentials.user, credentials.password.reveal(), "1.0", _ORIGINATOR)
            session = str(self._proxy.handle)
            # The SDK would otherwise log in again by itself, once per connection, behind our back.
            self._proxy.last_login_method = self._proxy.last_login_params = None
            return session

    def call(
        self, session: str, method: str, params: tuple[object, ...], *, timeout_s: float, cancel: Cancellation
    ) -> JsonValue:
        """Return the value of one call. Raises ``RpcFailure``, ``SessionInvalid`` or a connection error of ours."""
        with self._guarded(method, timeout_s=timeout_s, cancel=cancel):
            self._proxy._session = session
            return _plain(self._proxy.xenapi_request(method, params))

    def logout(self, session: str, *, timeout_s: float) -> None:
        """End the session; raises as ``call``."""
        with self._guarded("session.logout", timeout_s=timeout_s, cancel=Cancellation()):
            self._proxy._session = session
            self._proxy.last_login_method = "login_with_password"
            self._proxy.logout()

    def close(self) -> None:
        """Drop the connection."""
        self._transport.close()

    @contextmanager
    def _guarded(self, operation: str, *, timeout_s: float, cancel: Cancellation) -> Iterator[None]:
        """Bound and watch one exchange, and turn what the libraries raise into our errors."""
        cancel.check()
        connection = self._transport.connection_for(timeout_s)
        try:
            with cancel.on_cancel(connection.interrupt):
                yield
        except XenAPI.Failure as failure:
            raise RpcFailure([str(each) for each in failure.details]) from failure
        except (OSError, http.client.HTTPException) as cause:
            self.close()
            cancel.check()
            why = str(cause) or type(cause).__name__
            raise PoolConnectionLost(address=self.address.url, operation=operation, why=why) from cause
        except xmlrpc.client.Fault as cause:
            if cause.faultCode == 401:
                raise SessionInvalid from cause
            raise PoolAnswerInvalid(address=self.address.url, operation=operation, why=cause.faultString) from cause
        except xmlrpc.client.ProtocolError as cause:
            self.close()
            raise PoolAnswerInvalid(
                address=self.address.url, operation=operation, why=f"HTTP {cause.errcode} {cause.errmsg}"
            ) from cause
        except (xmlrpc.client.Error, ExpatError, TypeError, ValueError) as cause:
            self.close()
            raise PoolAnswerInvalid(address=self.address.url, operation=operation, why=repr(cause)[:200]) from cause


class _Transport(xmlrpc.client.Transport):
    """``xmlrpc.client``'s transport on a trusted connection, without its habit of sending a request twice."""

    user_agent = "Holdfast"

    def __init__(self, address: PoolAddress, trust: TlsTrust, *, timeout_s: float) -> None:
        super().__init__()
        self._address, self._trust = address, trust
        self._http = PoolHttpConnection(address, trust, timeout_s=timeout_s)

    def connection_for(self, timeout_s: float) -> PoolHttpConnection:
        """Return the connection, ready for one exchange."""
        self._http.prepare(timeout_s=timeout_s)
        return self._http

    def make_connection(self, host: Any) -> PoolHttpConnection:
        return self._http

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        return self.single_request(host, handler, request_body, verbose)

    def close(self) -> None:
        self._http.close()


def parse_task_result(fragment: str) -> JsonValue:
    """Return the value in a task's ``result``: an XML-RPC fragment, or nothing while and when there is none."""
    if not fragment:
        return ""
    document = f"<methodResponse><params><param>{fragment}</param></params></methodResponse>"
    try:
        values, _ = xmlrpc.client.loads(document)
    except (ExpatError, xmlrpc.client.Error, ValueError):
        values = ()
    # Some calls leave plain text there; it is the value then.
    return _plain(values[0]) if values else fragment


def _plain(value: Any) -> JsonValue:
    match value:
        case xmlrpc.client.DateTime():
            return str(value.value)
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case str() | bool() | int() | float() | None:
            return value
        case _:
            raise TypeError(f"unexpected {type(value).__name__} in an answer")
