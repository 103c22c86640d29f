"""What all data handlers share: who may transfer, which task tells how it went, and errors that come too late.

A pool answers 200 before it begins to work, so a failure after that is written *into* the body as a second response.
Invariant: whatever happens, the task ends with the truth, and a task that the handler made itself vanishes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.core import HoldfastError, get_log
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure, quoted
from holdfast.lab.handlers.faulty import Truncated, faulty_connection
from holdfast.lab.hosts import named_host, redirect, sees_storage, storage_host
from holdfast.lab.http import Connection, Disconnected, Request, pages
from holdfast.lab.operations import Cancelled
from holdfast.lab.rpc import write_value

__all__ = [
    "IO_ERROR",
    "Refused",
    "Transfer",
    "authenticated",
    "client_gone",
    "end_of_file",
    "exception_text",
    "missing_uuid",
    "refused_early",
    "transfer",
]

_END_OF_FILE = "End_of_file"

_INVALID_ARGUMENT = "Invalid argument: "

log = get_log(__name__)


def IO_ERROR() -> ApiFailure:  # noqa: N802
    """Return what a pool calls every failure of its copying tools."""
    return ApiFailure("VDI_IO_ERROR", "Device I/O errors")


def end_of_file() -> ApiFailure:
    """Return what becomes of a body that ends too early: no page tells of it, only the task."""
    return ApiFailure("INTERNAL_ERROR", _END_OF_FILE)


def client_gone() -> ApiFailure:
    """Return what becomes of an export whose client went away, where the pool itself writes the stream."""
    return ApiFailure("CLIENT_ERROR", 'INTERNAL_ERROR: [ Unix.Unix_error(Unix.ECONNRESET, "write", "") ]')


class Refused(Exception):
    """The request is answered with this page and ends; the task fails with ``failure`` when there is one."""

    def __init__(self, page: bytes, failure: ApiFailure | None = None, *, keeps_open: bool = False) -> None:
        super().__init__(str(failure))
        self.page = page
        self.failure = failure
        self.keeps_open = keeps_open


def missing_uuid(cls: str, value: str) -> str:
    """Return the text of the exception for an object that is not there."""
    return f"Db_exn.Read_missing_uuid({quoted(cls)}, {quoted('')}, {quoted(value)})"


@dataclass(slots=True)
class Transfer:
    """One transfer: the request, its connection, and the task that tells of it."""

    context: Context
    request: Request
    connection: Connection
    task: str
    is_own_task: bool
    result: object = None
    """What the task says when it succeeds; None for an empty result."""
    resets_at_end: bool = False
    keeps_open: bool = False
    """Whether the client may go on with the connection when all went well."""
    realm: str = ""
    _percent: int = -1

    @property
    def pool(self) -> PoolCore:
        """The pool."""
        return self.context.pool

    @property
    def host(self) -> str:
        """The host that received the request."""
        return self.context.host

    def assert_storage(self, srs: Iterable[str]) -> None:
        """Return when this host sees the storage; otherwise the client is sent to a host that does."""
        wanted = list(srs)
        if not sees_storage(self.pool, self.host, wanted):
            raise Refused(redirect(self.pool, self.request, storage_host(self.pool, wanted)))

    def head(self, *headers: str) -> None:
        """Send the 200 that comes before the work."""
        self.connection.send(pages.plain_head("HTTP/1.1 200 OK", *headers))

    def progress(self, done: float) -> None:
        """Record how far the transfer is, in whole percents."""
        percent = min(100, int(done * 100))
        if percent != self._percent:
            self._percent = percent
            self.pool.tasks.set_progress(self.task, percent / 100)


Work = Callable[[Transfer], None]


@contextmanager
def authenticated(pool: PoolCore, request: Request, realm: str) -> Iterator[str]:
    """Give the session of a request: cookie, query, or one of its own for Basic credentials; refused with a 401."""
    refusal = Refused(pages.unauthorised(realm, version=request.version))
    session = request.parameter("session_id")
    if session is not None:
        if not pool.sessions.is_valid(session):
            raise refusal
        _assert_rights(pool, request, session, realm)
        yield session
        return
    credentials = request.basic_credentials
    if credentials is None:
        header = request.headers.get("authorization")
        if header is not None:
            text = f"Failure({quoted(f'Unknown authorization header: {header}')})"
            raise Refused(pages.internal_error(text, version=request.version))
        raise refusal
    try:
        pool.sessions.check_password(*credentials)
        own = pool.sessions.open(user=credentials[0], originator="", host=pool.master_ref)
    except ApiFailure as cause:
        raise refusal from cause
    try:
        _assert_rights(pool, request, own, realm)
        yield own
    finally:
        pool.sessions.close(own)


def _assert_rights(pool: PoolCore, request: Request, session: str, realm: str) -> None:
    """Return when the user may use the handler; otherwise his task fails and he gets a 403."""
    rbac, permission = pool.sessions.rbac, f"http/{realm}"
    if rbac.is_allowed(pool.db, session, permission):
        return
    task = request.parameter("task_id")
    if task is not None:
        pool.tasks.fail(task, rbac.denial(permission).description)
    raise Refused(pages.forbidden(version=request.version))


def refused_early(one: Transfer, failure: ApiFailure, *, is_answer: bool = False) -> Refused:
    """Return what a failure becomes before the handler has begun: to the pool it is a matter of permissions.

    ``is_answer`` is whether a call that the handler made was refused, so that even a bad uuid is an API error.
    """
    page = error_page(failure, version=one.request.version, is_answer=is_answer)
    return Refused(page, ApiFailure("RBAC_PERMISSION_DENIED", f"http/{one.realm}", str(failure)))


def transfer(
    pool: PoolCore, request: Request, connection: Connection, *, host: str, realm: str, label: str, work: Work
) -> bool:
    """Run one transfer that arrived at ``host``, from credentials to the end of its task; True keeps the connection."""
    try:
        with authenticated(pool, request, realm) as session, _task(pool, request, label, session) as (task, is_own):
            context = Context(pool, session, task, host)
            fault = pool.faults.take("transfer-redirected", path=request.path)
            if fault is not None:
                raise Refused(redirect(pool, request, named_host(pool, fault.text("host")) or host))
            faulty = faulty_connection(pool, request, connection, session=session)
            return _run(Transfer(context, request, faulty, task, is_own, realm=realm), work)
    except Refused as refusal:
        connection.send(refusal.page)
        if not refusal.keeps_open:
            connection.linger(pool.delays.linger_s)
        return refusal.keeps_open


@contextmanager
def _task(pool: PoolCore, request: Request, label: str, session: str) -> Iterator[tuple[str, bool]]:
    task = request.parameter("task_id")
    if task is not None:
        if not pool.tasks.exists(task):
            text = f"Db_exn.DBCache_NotFound({quoted('missing row')}, {quoted('task')}, {quoted(task)})"
            raise Refused(pages.internal_error(text, version=request.version))
        yield task, False
        return
    parent = request.parameter("subtask_of") or NULL_REF
    task = pool.tasks.create(label, host=pool.master_ref, session=session, subtask_of=parent)
    try:
        yield task, True
    finally:
        pool.tasks.destroy(task)


def _run(one: Transfer, work: Work) -> bool:
    tasks = one.pool.tasks
    try:
        with contextlib.suppress(Truncated):
            work(one)
    except Refused as refusal:
        if refusal.failure is not None:
            tasks.fail(one.task, refusal.failure.description)
        raise
    except Disconnected:
        tasks.fail(one.task, IO_ERROR().description)
        one.connection.reset()
        return False
    except ApiFailure as failure:
        tasks.fail(one.task, failure.description)
        if failure.params[-1:] != (_END_OF_FILE,):
            _append_error(one, failure)
        return False
    except Cancelled:
        tasks.end_cancelled(one.task)
        _append_error(one, ApiFailure("TASK_CANCELLED", one.task))
        return False
    except HoldfastError as cause:
        log.warning("lab.transfer-failed", path=one.request.path, reason=str(cause))
        tasks.fail(one.task, IO_ERROR().description)
        _append_error(one, IO_ERROR())
        return False
    except Exception as cause:
        log.exception("lab.transfer-broken", path=one.request.path)
        tasks.fail(one.task, ["INTERNAL_ERROR", repr(cause)])
        _append_error(one, ApiFailure("INTERNAL_ERROR", repr(cause)))
        return False
    if one.pool.faults.take("task-vanishes", method=one.request.path):
        tasks.destroy(one.task)
    else:
        tasks.succeed(one.task, "" if one.result is None else write_value(one.result))
    is_reset = one.request.method == "PUT" and one.pool.faults.take("import-resets", path=one.request.path)
    if is_reset or one.resets_at_end:
        # A pool needs a moment to finish what it read; by then the client has sent all, as some clients count on.
        one.pool.clock.sleep(one.pool.delays.linger_s)
        one.connection.reset()
    elif not one.keeps_open:
        one.connection.linger(one.pool.delays.linger_s)
    return one.keeps_open


_FROM_A_CALL = "Storage_error"
"""Disks are attached by a call that the handler makes, and what a call answers is an API error in any case."""


def exception_text(failure: ApiFailure) -> str:
    """Return how a pool prints a failure; an exception that never was an API error is printed bare."""
    match failure.code, failure.params:
        case "INTERNAL_ERROR", (text,) if text.startswith(_INVALID_ARGUMENT):
            return f"Invalid_argument({quoted(text.removeprefix(_INVALID_ARGUMENT))})"
        case "INTERNAL_ERROR", (text,) if not text.startswith(_FROM_A_CALL):
            return text
        case "UUID_INVALID", (cls, uuid):
            return missing_uuid(cls, uuid)
        case "HANDLE_INVALID", (cls, ref):
            return f"Db_exn.DBCache_NotFound({quoted('missing row')}, {quoted(cls)}, {quoted(ref)})"
        case _:
            return str(failure)


def error_page(failure: ApiFailure, *, version: str, is_answer: bool = False) -> bytes:
    """Return the page for a failure. API errors stand on it as they are, only other exceptions are escaped."""
    is_told = is_answer and failure.code != "INTERNAL_ERROR"
    text = str(failure) if is_told else exception_text(failure)
    return pages.internal_error(text, version=version, is_escaped=text == str(failure))


def _append_error(one: Transfer, failure: ApiFailure) -> None:
    try:
        one.connection.send(error_page(failure, version=one.request.version))
    except Disconnected:
        return
    one.connection.linger(one.pool.delays.linger_s)
