"""What all data handlers share: who may transfer, which task tells how it went, and errors that come too late.

A pool answers 200 before it begins to work, so a failure after that is written *into* the body as a second response.
Invariant: whatever happens, the task ends with the truth, and a task that the handler made itself vanishes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from holdfast.core import HoldfastError, get_log
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.errors import ApiFailure, quoted
from holdfast.lab.handlers.faulty import Truncated, faulty_connection
from holdfast.lab.hosts import named_host, redirect, sees_storage, storage_host
from holdfast.lab.http import Connection, Disconnected, Request, pages
from holdfast.lab.rpc import write_value

__all__ = ["IO_ERROR", "Refused", "Transfer", "authenticated", "find_disk", "missing_uuid", "transfer"]

log = get_log(__name__)


def IO_ERROR() -> ApiFailure:  # noqa: N802
    """Return what a pool calls every failure of its copying tools."""
    return ApiFailure("VDI_IO_ERROR", "Device I/O errors")


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
    _bytes_done: int = field(default=0)

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
        """Record how far the transfer is."""
        self.pool.tasks.set_progress(self.task, done)


Work = Callable[[Transfer], None]


@contextmanager
def authenticated(pool: PoolCore, request: Request, realm: str) -> Iterator[str]:
    """Give the session of a request: cookie, query, or one of its own for Basic credentials; refused with a 401."""
    session = request.parameter("session_id")
    if session is not None:
        if not pool.sessions.is_valid(session):
            raise Refused(pages.unauthorised(realm))
        yield session
        return
    credentials = request.basic_credentials
    if credentials is None:
        raise Refused(pages.unauthorised(realm))
    try:
        pool.sessions.check_password(*credentials)
    except ApiFailure as cause:
        raise Refused(pages.unauthorised(realm)) from cause
    own = pool.sessions.open(user=credentials[0], originator="", host=pool.master_ref)
    try:
        yield own
    finally:
        pool.sessions.close(own)


def find_disk(transfer: Transfer, value: str, permission: str) -> str:
    """Return the disk that a query parameter names by reference or uuid; refused when there is none."""
    db = transfer.pool.db
    if db.exists("VDI", value):
        return value
    if db.has_uuid("VDI", value):
        return db.by_uuid("VDI", value)
    failure = ApiFailure("RBAC_PERMISSION_DENIED", f"http/{permission}", f"UUID_INVALID: [ VDI; {value} ]")
    raise Refused(pages.internal_error(missing_uuid("VDI", value)), failure)


def transfer(
    pool: PoolCore, request: Request, connection: Connection, *, host: str, realm: str, label: str, work: Work
) -> bool:
    """Run one transfer that arrived at ``host``, from credentials to the end of its task; True keeps the connection."""
    try:
        with authenticated(pool, request, realm) as session, _task(pool, request, label) as (task, is_own):
            context = Context(pool, session, task, host)
            fault = pool.faults.take("transfer-redirected", path=request.path)
            if fault is not None:
                raise Refused(redirect(pool, request, named_host(pool, fault.text("host")) or host))
            faulty = faulty_connection(pool, request, connection, session=session)
            return _run(Transfer(context, request, faulty, task, is_own), work)
    except Refused as refusal:
        connection.send(refusal.page)
        if not refusal.keeps_open:
            connection.linger(pool.delays.linger_s)
        return refusal.keeps_open


@contextmanager
def _task(pool: PoolCore, request: Request, label: str) -> Iterator[tuple[str, bool]]:
    task = request.parameter("task_id")
    if task is not None:
        if not pool.tasks.exists(task):
            text = f"Db_exn.DBCache_NotFound({quoted('missing row')}, {quoted('task')}, {quoted(task)})"
            raise Refused(pages.internal_error(text))
        yield task, False
        return
    task = pool.tasks.create(label, host=pool.master_ref)
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
        _append_error(one, _exception_text(failure))
        return False
    except HoldfastError as cause:
        log.warning("lab.transfer-failed", path=one.request.path, reason=str(cause))
        tasks.fail(one.task, IO_ERROR().description)
        _append_error(one, str(IO_ERROR()))
        return False
    except Exception as cause:
        log.exception("lab.transfer-broken", path=one.request.path)
        tasks.fail(one.task, ["INTERNAL_ERROR", repr(cause)])
        _append_error(one, repr(cause))
        return False
    if one.pool.faults.take("task-vanishes", method=one.request.path):
        tasks.destroy(one.task)
    else:
        tasks.succeed(one.task, "" if one.result is None else write_value(one.result))
    if one.resets_at_end:
        one.connection.reset()
    else:
        one.connection.linger(one.pool.delays.linger_s)
    return False


def _exception_text(failure: ApiFailure) -> str:
    """An exception that never was an API error is printed bare, and so is a missing uuid."""
    if failure.code == "INTERNAL_ERROR" and failure.params[0].startswith("Failure("):
        return failure.params[0]
    if failure.code == "UUID_INVALID":
        return missing_uuid(failure.params[0], failure.params[1])
    return str(failure)


def _append_error(one: Transfer, text: str) -> None:
    try:
        one.connection.send(pages.internal_error(text, version=one.request.version))
    except Disconnected:
        return
    one.connection.linger(one.pool.delays.linger_s)
