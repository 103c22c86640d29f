"""Bulk bodies over HTTP: exports read as a stream, uploads sent with a known length, both judged by their task.

Invariant: the HTTP status decides nothing but where to go next. XAPI says 200 before it begins; only the task's end,
and the bytes themselves, tell whether a transfer is whole.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

from holdfast.core import Cancellation, HoldfastError, limits
from holdfast.model import JsonValue
from holdfast.xapi.address import PoolAddress
from holdfast.xapi.calls import Calls
from holdfast.xapi.connection import PoolHttpConnection
from holdfast.xapi.errors import PoolAnswerInvalid, PoolConnectionLost, TaskOverdue
from holdfast.xapi.hosts import trust_in_host
from holdfast.xapi.tasks import create_task, destroy_task, wait_task
from holdfast.xapi.tls import describe_os_error

__all__ = ["Download", "TransferRequest", "upload"]

_HOPS_MAX = 3
"""A host that does not see the SR names one that does; a third hop means that the SR moved, or the session ended,
meanwhile."""
_AFTERMATH_S = 90.0
"""How long a task may take to end after its transfer did: flushing, and detaching the disk from the control domain."""
_REFUSAL_S = 5.0
"""How long the task of a refused transfer is given to say why; it fails before the refusal is sent, if at all."""
_EARLY_ANSWER_S = 10.0
"""XAPI answers an upload as soon as it has read the headers; a server that has not by then answers at the end."""
_BODY_BYTES_MAX = 64 << 20
"""The pool's description of a VM is about 50 KB; this bounds a server that never stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRequest:
    """What is asked of a transfer handler; session and task are added where it is sent."""

    verb: str
    path: str
    query: Mapping[str, str]
    operation: str
    """What it is for, in words that errors and the pool's task list show."""


class _Exchange:
    """One request on one connection, headers sent and the first answer read; closed by its context."""

    def __init__(self, calls: Calls, cancel: Cancellation, undo: contextlib.ExitStack) -> None:
        self._calls, self._cancel, self._undo = calls, cancel, undo
        self.address, self._trust = calls.session.address, calls.session.trust
        self.task: str | None = None
        self._session = ""
        self._named_host: str | None = None
        self.response: http.client.HTTPResponse | None = None

    def start(self, request: TransferRequest, *, with_task: bool, length_bytes: int | None) -> PoolHttpConnection:
        """Send the headers to the host that has the disk, following where the pool points. ``response`` is None when
        the server keeps its answer until it has the body."""
        for hops_left in reversed(range(_HOPS_MAX)):
            hop = self._undo.enter_context(contextlib.ExitStack())
            connection = self._ask(request, hop, with_task=with_task, length_bytes=length_bytes)
            if self.response is not None and self.response.status == http.client.UNAUTHORIZED and hops_left:
                # Nothing was begun: the pool has forgotten the session since it was last used.
                hop.close()
                self._calls.session.login(cancel=self._cancel, instead_of=self._session)
                self._named_host = None
                continue
            if self.response is None or self.response.status != http.client.FOUND:
                return connection
            host = urlsplit(self.response.getheader("Location") or "").hostname
            # The next host gets a task of its own: whether the first has ended this one depends on XAPI's version.
            hop.close()
            if not host:
                break
            self._named_host = host
        raise PoolAnswerInvalid(address=self.address.url, operation=request.operation, why="redirects without end")

    def _ask(
        self, request: TransferRequest, hop: contextlib.ExitStack, *, with_task: bool, length_bytes: int | None
    ) -> PoolHttpConnection:
        if with_task:
            self.task = create_task(self._calls, f"Holdfast: {request.operation}")
            hop.callback(destroy_task, self._calls, self.task)
        # Only now: making the task may have taken a new login, at another master.
        self._session = self._calls.session.reference
        query = {**request.query, "session_id": self._session, **({"task_id": self.task} if self.task else {})}
        self.address, self._trust = self._calls.session.address, self._calls.session.trust
        if self._named_host is not None:
            self.address = self.address.at_host(self._named_host)
            self._trust = trust_in_host(self._calls, self._named_host)
        connection = PoolHttpConnection(self.address, self._trust, timeout_s=limits.POOL_CONNECT_TIMEOUT_S)
        hop.callback(connection.close)
        hop.enter_context(self._cancel.on_cancel(connection.interrupt))
        with lost_when_broken(self.address, request.operation, self._cancel):
            connection.connect()
            # XAPI reads keys such as "vdi:<uuid>" as they are, so the colon stays.
            connection.putrequest(request.verb, f"{request.path}?{urlencode(query, safe=':')}")
            if length_bytes is not None:
                connection.putheader("Content-Length", str(length_bytes))
            connection.endheaders()
            self.response = _early_answer(connection) if length_bytes else _answer(connection)
            connection.sock.settimeout(limits.POOL_STALL_TIMEOUT_S)
        return connection

    def raise_refusal(self, request: TransferRequest) -> None:
        """Raise why the server answered anything but 200: the task knows it best."""
        assert self.response is not None
        status, reason = self.response.status, self.response.reason
        if self.task is not None and status != http.client.UNAUTHORIZED:
            # After 401, and for a path it does not know, XAPI leaves the task pending for ever.
            with contextlib.suppress(TaskOverdue):
                wait_task(self._calls, self.task, operation=request.operation, timeout_s=_REFUSAL_S)
        raise PoolAnswerInvalid(address=self.address.url, operation=request.operation, why=f"HTTP {status} {reason}")


class Download:
    """An HTTP body being read, with the task that XAPI judges it by. A context manager.

    Without ``with_task`` XAPI makes a task of its own, which is right for a body that is cut on purpose.
    """

    def __init__(self, calls: Calls, request: TransferRequest, *, with_task: bool, cancel: Cancellation) -> None:
        self._calls, self._request, self._with_task, self._cancel = calls, request, with_task, cancel
        self._cleanup = contextlib.ExitStack()
        self._exchange = _Exchange(calls, cancel, self._cleanup)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.push(self._cleanup)
            self._exchange.start(self._request, with_task=self._with_task, length_bytes=None)
            assert self._exchange.response is not None
            if self._exchange.response.status != http.client.OK:
                self._exchange.raise_refusal(self._request)
            undo.pop_all()
        return self

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of the buffer; 0 at the end, which may have come too early. ``PoolConnectionLost`` when cut."""
        assert self._exchange.response is not None
        with lost_when_broken(self._exchange.address, self._request.operation, self._cancel):
            got = self._exchange.response.readinto(buffer)
        if not got:
            # A connection that we shut down ourselves looks like the end of the body.
            self._cancel.check()
        return got

    def read_all(self) -> bytes:
        """Return the whole body, which is small."""
        body = bytearray()
        chunk = memoryview(bytearray(1 << 16))
        while got := self.readinto(chunk):
            body += chunk[:got]
            if len(body) > _BODY_BYTES_MAX:
                raise PoolAnswerInvalid(
                    address=self._exchange.address.url,
                    operation=self._request.operation,
                    why=f"the body is longer than {_BODY_BYTES_MAX} bytes",
                )
        return bytes(body)

    def judge(self) -> JsonValue:
        """Return the task's result when XAPI says that the transfer succeeded; raise its failure otherwise."""
        assert self._exchange.task is not None, "a body without a task has no verdict"
        return wait_task(self._calls, self._exchange.task, operation=self._request.operation, timeout_s=_AFTERMATH_S)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()


def upload(
    calls: Calls,
    request: TransferRequest,
    *,
    body: Iterable[bytes | memoryview],
    length_bytes: int,
    cancel: Cancellation,
) -> JsonValue:
    """Send a body of known length and return the task's result; the task alone says whether it arrived.

    A connection that is reset while or after sending is no failure of its own: XAPI stops reading when it has what it
    needs, and its task tells why it stopped when it has not.
    """
    with contextlib.ExitStack() as undo:
        exchange = _Exchange(calls, cancel, undo)
        connection = exchange.start(request, with_task=True, length_bytes=length_bytes)
        if exchange.response is not None and exchange.response.status != http.client.OK:
            exchange.raise_refusal(request)
        lost: PoolConnectionLost | None = None
        try:
            with lost_when_broken(exchange.address, request.operation, cancel):
                _send(connection, body, length_bytes)
        except PoolConnectionLost as failure:
            lost = failure
        assert exchange.task is not None
        try:
            return wait_task(calls, exchange.task, operation=request.operation, timeout_s=_AFTERMATH_S)
        except HoldfastError as verdict:
            raise verdict from lost


def _answer(connection: PoolHttpConnection) -> http.client.HTTPResponse:
    """Read the answer's head. The connection stays open, whatever the answer says about closing."""
    connection.sock.settimeout(limits.POOL_CALL_TIMEOUT_S)
    response = http.client.HTTPResponse(connection.sock)
    response.begin()
    return response


def _early_answer(connection: PoolHttpConnection) -> http.client.HTTPResponse | None:
    """Read the answer that comes before the body, so that a redirect costs no stream; None when none comes."""
    connection.sock.settimeout(_EARLY_ANSWER_S)
    response = http.client.HTTPResponse(connection.sock)
    try:
        response.begin()
    except TimeoutError:
        return None
    return response


def _send(connection: PoolHttpConnection, body: Iterable[bytes | memoryview], length_bytes: int) -> None:
    sent = 0
    for piece in body:
        connection.sock.sendall(piece)
        sent += len(piece)
    assert sent == length_bytes, f"announced {length_bytes} bytes, sent {sent}"


@contextlib.contextmanager
def lost_when_broken(address: PoolAddress, operation: str, cancel: Cancellation) -> Iterator[None]:
    """Turn a broken connection into ``PoolConnectionLost``, or into ``Cancelled`` when we broke it."""
    try:
        yield
    except (OSError, http.client.HTTPException) as cause:
        cancel.check()
        raise PoolConnectionLost(address=address.url, operation=operation, why=describe_os_error(cause)) from cause
