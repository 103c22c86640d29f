"""From a method's name and wire parameters to its result: the checks in the pool's order, then the call, sync or async.

Order of refusals: wrong number of parameters, parameters that do not convert, session, removed call, no asynchronous
mode. What comes after, rights included, fails the task of an asynchronous call. A name that nobody knows is only told
to who is logged in. Invariant: a call that is refused here has changed nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import cast

from holdfast.core import get_log
from holdfast.lab.call_faults import meet_call_faults, stall_call
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.datamodel import NULL_REF, ClassTable, DateTime, Kind, describe
from holdfast.lab.disk_refusals import DISK_REFUSALS, disk_refusal
from holdfast.lab.errors import ApiFailure, internal_failure, quoted
from holdfast.lab.generic import Handler, Method, build_methods
from holdfast.lab.hosts import check_alive
from holdfast.lab.operations import Cancelled
from holdfast.lab.records import Records
from holdfast.lab.rpc import write_value

__all__ = ["Dispatcher"]

log = get_log(__name__)

_GUARDED_MAPS = frozenset({("VM", "other_config"), ("VM", "platform"), ("task", "other_config")})

_WITHOUT_TASKS = frozenset({"event", "task"})
"""Classes whose calls run asynchronously, too, but nobody can ask what became of them."""

_EXTENSION = Method("Host.call_extension", (), None)
"""What the pool takes an unknown name for."""


def _without_prefix(name: str) -> str:
    """Return the name of the call itself; one prefix is understood, of two kinds that mean the same to a client."""
    for prefix in ("Async.", "InternalAsync."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


class Dispatcher:
    """All calls of one pool."""

    def __init__(self, pool: PoolCore, records: Records, handlers: Mapping[str, Handler]) -> None:
        self._pool = pool
        self.methods = build_methods(pool.db.datamodel, records, handlers)
        pool.sessions.rbac.learn({name: method.role for name, method in self.methods.items()})
        self._respelled = {name.replace(".", "_", 1): name for name in self.methods}
        """The pool also takes ``VM_start`` for ``VM.start``, and some clients spell calls so."""

    def call(self, name: str, parameters: list[object], *, host: str) -> object:
        """Return the result of a call that arrived at ``host``; ``ApiFailure`` is the refusal."""
        if name == "system.listMethods":
            return list(self.methods)
        given_name = _without_prefix(name)
        sync_name = self._respelled.get(given_name, given_name)
        method = self.methods.get(sync_name)
        if method is None:
            return self._meet_unknown(given_name, parameters, host=host)
        session, arguments = self._split_session(method, parameters, name=given_name)
        stall_call(self._pool, sync_name)
        values = [] if method.is_removed else self._convert(method, arguments)
        if method.needs_session:
            self._check_session(session, method, host=host)
        if method.is_removed:
            raise ApiFailure("MESSAGE_REMOVED")
        if given_name == name:
            task = f"DummyRef:|{self._pool.new_uuid()}|{sync_name}"
            return self._run(method, Context(self._pool, session, task, host), values)
        if not method.is_async:
            raise ApiFailure("Fault", f"No async mode for this operation (rpc: {given_name})")
        return self._start(method, session, values, label=name)

    def _meet_unknown(self, name: str, parameters: list[object], *, host: str) -> object:
        """A name that is no call could be an extension's, of which the lab has none; only a session may ask for one."""
        if name.startswith("system.isAlive:") and parameters:
            return parameters[0]
        if parameters:
            session = self._session_of(parameters)
            self._check_session(session, _EXTENSION, host=host)
            self._pool.sessions.rbac.check(self._pool.db, session, _EXTENSION.name.lower())
        raise ApiFailure("MESSAGE_METHOD_UNKNOWN", name)

    # -- checks

    @staticmethod
    def _split_session(method: Method, parameters: list[object], *, name: str) -> tuple[str, list[object]]:
        wanted, given = method.required_count, len(parameters) - method.needs_session
        if given < wanted or (given > wanted and not method.has_optional):
            raise ApiFailure("MESSAGE_PARAMETER_COUNT_MISMATCH", name, str(wanted), str(given))
        if not method.needs_session:
            return NULL_REF, parameters
        return Dispatcher._session_of(parameters), parameters[1:]

    @staticmethod
    def _session_of(parameters: list[object]) -> str:
        session = parameters[0]
        if not isinstance(session, str) or isinstance(session, DateTime):
            raise internal_failure(f"Expected string, got '{describe(session)}'")
        return session

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

    def _check_session(self, session: str, method: Method, *, host: str) -> None:
        if self._pool.faults.take("session-invalid", method=method.name):
            self._pool.sessions.close(session)
        self._pool.sessions.check(session)
        is_pool = self._pool.sessions.is_pool(session)
        if method.is_internal and not is_pool:
            text = f'Internal API "{method.name}" call attempted with non-pool (external) session'
            raise ApiFailure("INTERNAL_ERROR", text)
        if host != self._pool.master_ref and not is_pool:
            raise ApiFailure("HOST_IS_SLAVE", self._pool.master_address)

    def _check_rights(self, method: Method, context: Context, values: list[object]) -> None:
        if method.needs_session:
            rbac = context.pool.sessions.rbac
            key = str(values[1]) if method.keys else ""
            rbac.check(context.db, context.session, rbac.permission_for(method.name, method.keys, key))
            self._check_changed_keys(method, context, values)
        if method.is_sealed:
            raise ApiFailure("PERMISSION_DENIED", "")

    def _check_changed_keys(self, method: Method, context: Context, values: list[object]) -> None:
        """Replacing a whole map needs the rights for each key that changes, for the few maps where that matters."""
        cls, _, verb = method.name.partition(".")
        field = verb.removeprefix("set_")
        if (cls, field) not in _GUARDED_MAPS or field == verb or not context.db.exists(cls, str(values[0])):
            return
        rbac = context.pool.sessions.rbac
        keys = self.methods[f"{cls}.add_to_{field}"].keys
        old, new = context.db.mapping(cls, str(values[0]), field), cast("dict[str, str]", values[1])
        for key in sorted({*old, *new}):
            if old.get(key) == new.get(key):
                continue
            call = f"{cls}.{'add_to' if key in new else 'remove_from'}_{field}"
            permission = rbac.permission_for(call, keys, key)
            if "/key:" in permission:
                rbac.check(context.db, context.session, permission)

    # -- running

    def _run(self, method: Method, context: Context, values: list[object]) -> object:
        self._check_rights(method, context, values)
        if method.host_at is not None:
            check_alive(self._pool, str(values[method.host_at]))
        if method.handler is None:
            raise self._not_offered(method, values)
        try:
            meet_call_faults(context, method.name, values)
            return method.handler(context, *values)
        except Cancelled as cause:
            raise ApiFailure("TASK_CANCELLED", context.task) from cause
        except DISK_REFUSALS as cause:
            raise disk_refusal(cause) from cause

    def _not_offered(self, method: Method, values: list[object]) -> ApiFailure:
        """Return what a call without a handler answers: it, too, looks at the objects it is given first."""
        db = self._pool.db
        for parameter, value in zip(method.parameters, values, strict=False):
            cls = parameter.type.name
            if parameter.type.kind is Kind.REF and cls in db.datamodel.classes and not db.exists(cls, str(value)):
                return ApiFailure("HANDLE_INVALID", cls, str(value))
        return ApiFailure("NOT_IMPLEMENTED", method.name)

    def _start(self, method: Method, session: str, values: list[object], *, label: str) -> str:
        pool = self._pool
        if _without_prefix(label).partition(".")[0] in _WITHOUT_TASKS:
            context = Context(pool, session, f"DummyRef:|{pool.new_uuid()}|{label}", pool.master_ref)
            self._run_in_thread(label, lambda: self._run_unheard(method, context, values))
            return context.task
        task = pool.tasks.create(label, host=pool.master_ref, is_cancellable=True, session=session)
        context = Context(pool, session, task, pool.master_ref)
        self._run_in_thread(label, lambda: self._run_in_task(method, context, values))
        return task

    @staticmethod
    def _run_in_thread(label: str, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=f"lab-{label}", daemon=True).start()

    def _run_unheard(self, method: Method, context: Context, values: list[object]) -> None:
        try:
            self._run(method, context, values)
        except ApiFailure as refusal:
            log.info("lab.call-refused-unheard", method=method.name, code=refusal.code)

    def _run_in_task(self, method: Method, context: Context, values: list[object]) -> None:
        tasks = context.pool.tasks
        try:
            result = self._run(method, context, values)
        except ApiFailure as refusal:
            log.info("lab.task-refused", method=method.name, code=refusal.code)
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
