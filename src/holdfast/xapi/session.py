"""The login: one session reference shared by a stack of connections, renewed once when the pool has forgotten it.

Invariant: there is at most one live session per client; ``close`` ends it. A master that moved is followed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from holdfast.core import Cancellation, HoldfastError, get_log, limits
from holdfast.model import JsonValue
from holdfast.xapi.address import Credentials, PoolAddress
from holdfast.xapi.catalogue import failure_from
from holdfast.xapi.errors import LoginRefused, PoolConnectionLost, PoolUnreachable
from holdfast.xapi.tls import TlsTrust
from holdfast.xapi.wire import RpcConnection, RpcFailure, SessionInvalid

__all__ = ["PoolSession"]

_log = get_log(__name__)


class PoolSession:
    """A login at a pool's master. Thread-safe: each running call borrows a connection of its own."""

    def __init__(self, address: PoolAddress, credentials: Credentials, trust: TlsTrust) -> None:
        self._credentials, self._trust = credentials, trust
        self._lock = threading.Lock()
        self._login_lock = threading.Lock()
        self._idle: list[RpcConnection] = []
        self._address = address
        self._reference: str | None = None

    @property
    def address(self) -> PoolAddress:
        """Where the master is."""
        return self._address

    @property
    def trust(self) -> TlsTrust:
        """How the pool's hosts are recognised."""
        return self._trust

    @property
    def reference(self) -> str:
        """The session's reference, for transfers; it may be replaced when the pool forgets it."""
        reference = self._reference
        assert reference is not None, "not logged in"
        return reference

    def login(self, *, cancel: Cancellation, instead_of: str | None = None) -> None:
        """Log in, following the pool to its master. Does nothing when ``instead_of`` was replaced meanwhile.

        Raises ``PoolUnreachable`` also where the connection breaks before the answer: nothing but the login was asked.
        """
        with self._login_lock:
            if self._reference is not None and self._reference != instead_of:
                return
            address = self._address
            for _ in range(limits.POOL_MASTER_HOPS_MAX):
                try:
                    self._login_at(address, cancel)
                    return
                except RpcFailure as failure:
                    if failure.params[0] != "HOST_IS_SLAVE" or len(failure.params) < 2:
                        raise self._refusal(failure, address) from failure
                    address = address.at_host(failure.params[1])
                    _log.info("pool.master-followed", master=address.url)
            raise PoolUnreachable(address=address.url, why="its hosts do not agree on who is the master")

    def _login_at(self, address: PoolAddress, cancel: Cancellation) -> None:
        connection = RpcConnection(address, self._trust, timeout_s=limits.POOL_CONNECT_TIMEOUT_S)
        try:
            reference = connection.login(self._credentials, timeout_s=limits.POOL_CALL_TIMEOUT_S, cancel=cancel)
        except PoolConnectionLost as lost:
            raise PoolUnreachable(address=address.url, why=f"it hung up during the login: {lost.why}") from lost
        except BaseException:
            connection.close()
            raise
        with self._lock:
            stale, self._idle = self._idle, [connection]
            self._address, self._reference = address, reference
        for each in stale:
            each.close()

    def _refusal(self, failure: RpcFailure, address: PoolAddress) -> HoldfastError:
        if failure.params[0] == "SESSION_AUTHENTICATION_FAILED":
            why = failure.params[-1] if len(failure.params) > 1 else "authentication failed"
            return LoginRefused(address=address.url, user=self._credentials.user, why=why)
        return failure_from(failure.params, operation="login")

    def call(self, method: str, *params: object, cancel: Cancellation, timeout_s: float) -> JsonValue:
        """Return the value of one call; a forgotten session or a moved master is dealt with once.

        Raises ``PoolFailure`` and its kin for what XAPI refuses, and the connection errors. Never repeats a call that
        may have been carried out.
        """
        reference = self.reference
        try:
            return self._call_once(reference, method, params, cancel=cancel, timeout_s=timeout_s)
        except SessionInvalid:
            _log.info("pool.session-renewed", operation=method)
        except RpcFailure as failure:
            if failure.params[0] != "HOST_IS_SLAVE":
                raise failure_from(failure.params, operation=method) from failure
            _log.info("pool.master-moved", operation=method)
        self.login(cancel=cancel, instead_of=reference)
        try:
            return self._call_once(self.reference, method, params, cancel=cancel, timeout_s=timeout_s)
        except SessionInvalid as failure:
            raise failure_from(["SESSION_INVALID"], operation=method) from failure
        except RpcFailure as failure:
            raise failure_from(failure.params, operation=method) from failure

    def _call_once(
        self, reference: str, method: str, params: tuple[object, ...], *, cancel: Cancellation, timeout_s: float
    ) -> JsonValue:
        with self._borrowed() as connection:
            return connection.call(reference, method, params, timeout_s=timeout_s, cancel=cancel)

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[RpcConnection]:
        """Lend a connection; the most recently used first, so that the others can grow stale and be dropped."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = RpcConnection(self._address, self._trust, timeout_s=limits.POOL_CONNECT_TIMEOUT_S)
        try:
            yield connection
        finally:
            with self._lock:
                keep = len(self._idle) < limits.POOL_IDLE_CONNECTIONS_MAX and connection.address == self._address
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def close(self) -> None:
        """Log out as far as the pool can be reached, and drop every connection. Safe to call twice; never fails."""
        with self._login_lock:
            reference, self._reference = self._reference, None
            if reference is not None:
                # A session that cannot be ended dies on the pool after 24 hours of silence.
                with (
                    contextlib.suppress(HoldfastError, RpcFailure, SessionInvalid),
                    self._borrowed() as connection,
                ):
                    connection.logout(reference, timeout_s=limits.POOL_LOGOUT_TIMEOUT_S)
            with self._lock:
                stale, self._idle = self._idle, []
            for each in stale:
                each.close()
