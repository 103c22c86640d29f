"""From a method's name and wire parameters to its result: the checks in the pool's order, then the call, sync or async.

Order of refusals: unknown name, wrong number of parameters, parameters that do not convert, removed call, session.
Invariant: a call that is refused here has changed nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from holdfast.core import get_log
from holdfast.lab.call_faults import meet_call_faults, stall_call
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.datamodel import NULL_REF, ClassTable, describe
from holdfast.lab.disks import DiskChainTooLong
from holdfast.lab.errors import ApiFailure, internal_failure, quoted
from holdfast.lab.generic import Handler, Method, build_methods
from holdfast.lab.operations import Cancelled
from holdfast.lab.records import Records
from holdfast.lab.rpc import write_value

__all__ = ["Dispatcher"]

log = get_log(__name__)


class Dispatcher:
    """All calls of one pool."""

    def __init__(self, pool: PoolCore, records: Records, handlers: Mapping[str, Handler]) -> None:
        self._pool = pool
        self.methods = build_methods(pool.db.datamodel, records, handlers)
        self._respelled = {name.replace(".", "_", 1): name for name in self.methods}
        """The pool also takes ``VM_start`` for ``VM.start``, and some clients spell calls so."""

    def call(self, name: str, parameters: list[object], *, host: str) -> object:
        """Return the result of a call that arrived at ``host``; ``ApiFailure`` is the refusal."""
        if name in ("system.listMethods", "host.list_methods"):
            if name == "host.list_methods":
                raise ApiFailure("NOT_IMPLEMENTED", "list_method")
            return sorted(self.methods)
        is_async = name.startswith("Async.")
        given_name = name.removeprefix("Async.")
        sync_name = self._respelled.get(given_name, given_name)
        method = self.methods.get(sync_name)
        if method is None:
            raise ApiFailure("MESSAGE_METHOD_UNKNOWN", name)
        session, arguments = self._split_session(method, parameters, name=given_name)
        stall_call(self._pool, sync_name)
        values = [] if method.is_removed else self._convert(method, arguments)
        if method.needs_session:
            self._check_session(session, sync_name, host=host)
        if method.is_removed:
            raise ApiFailure("MESSAGE_REMOVED")
        if method.is_internal:
            raise ApiFailure("PERMISSION_DENIED", "")
        if is_async and not method.is_async:
            raise ApiFailure("Fault", f"No async mode for this operation (rpc: {sync_name})")
        if is_async:
            return self._start(method, session, values, label=name)
        task = f"DummyRef:|{self._pool.new_uuid()}|{sync_name}"
        return self._run(method, Context(self._pool, session, task, host), values)

    # -- checks

    @staticmethod
    def _split_session(method: Method, parameters: list[object], *, name: str) -> tuple[str, list[object]]:
        wanted, given = method.required_count, len(parameters) - method.needs_session
        if given < wanted or (given > wanted and not method.has_optional):
            raise ApiFailure("MESSAGE_PARAMETER_COUNT_MISMATCH", name, str(wanted), str(given))
        if not method.needs_session:
            return NULL_REF, parameters
        session = parameters[0]
        if not isinstance(session, str):
            raise internal_failure(f"Expected string, got '{describe(session)}'")
        return session, parameters[1:]

    def _convert(self, method: Method, arguments: list[object]) -> list[object]:
        enums = self._pool.db.datamodel.enums
        if method.constructs is not None:
            return [self._convert_record(method.constructs, arguments[0])]
        pairs = zip(method.parameters, arguments, strict=False)
        return [parameter.type.accept(argument, enums) for parameter, argument in pairs]

    def _convert_record(self, table: ClassTable, argument: object) -> dict[str, object]:
        if not isinstance(argument, dict):
            raise internal_failure("bad __structure")
        enums = self._pool.db.datamodel.enums
        record: dict[str, object] = {}
        for name, spec in table.fields.items():
            if not spec.is_given_at_creation:
                continue
            if name in argument:
                record[name] = spec.type.accept(argument[name], enums)
            elif spec.has_default:
                record[name] = spec.default
            else:
                text = f"Server_helpers.Dispatcher_FieldNotFound({quoted(name)})"
                raise ApiFailure("INTERNAL_ERROR", text)
        return record

    def _check_session(self, session: str, name: str, *, host: str) -> None:
        if host != self._pool.master_ref:
            raise ApiFailure("HOST_IS_SLAVE", self._pool.master_address)
        if self._pool.faults.take("session-invalid", method=name):
            self._pool.sessions.close(session)
        self._pool.sessions.check(session)

    # -- running

    def _run(self, method: Method, context: Context, values: list[object]) -> object:
        if method.handler is None:
            raise ApiFailure("NOT_IMPLEMENTED", method.name)
        try:
            meet_call_faults(context, method.name, values)
            return method.handler(context, *values)
        except Cancelled as cause:
            raise ApiFailure("TASK_CANCELLED", context.task) from cause
        except DiskChainTooLong as cause:
            raise ApiFailure("SR_BACKEND_FAILURE_109", "", "The snapshot chain is too long", "") from cause

    def _start(self, method: Method, session: str, values: list[object], *, label: str) -> str:
        pool = self._pool
        task = pool.tasks.create(label, host=pool.master_ref, is_cancellable=True)
        context = Context(pool, session, task, pool.master_ref)
        arguments = (method, context, values)
        threading.Thread(target=self._run_in_task, args=arguments, name=f"lab-{label}", daemon=True).start()
        return task

    def _run_in_task(self, method: Method, context: Context, values: list[object]) -> None:
        tasks = context.pool.tasks
        try:
            result = self._run(method, context, values)
        except ApiFailure as refusal:
            if refusal.code == "TASK_CANCELLED":
                tasks.end_cancelled(context.task)
            else:
                tasks.fail(context.task, refusal.description)
        except Exception as cause:
            log.exception("lab.task-failed", method=method.name)
            tasks.fail(context.task, ["INTERNAL_ERROR", repr(cause)])
        else:
            if context.pool.faults.take("task-vanishes", method=method.name):
                tasks.destroy(context.task)
            else:
                tasks.succeed(context.task, write_value(result))
