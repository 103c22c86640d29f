"""The calls that every class has, derived from the datamodel: reading records, reading and writing fields.

A ``Method`` is one name on the wire with everything the dispatcher needs to check a call before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from holdfast.lab.columns import column_of
from holdfast.lab.context import Context
from holdfast.lab.datamodel import (
    NOBODY,
    READ_ONLY,
    Call,
    ClassTable,
    Datamodel,
    Field,
    Kind,
    Parameter,
    Type,
    load_access,
    parse_type,
)
from holdfast.lab.errors import ApiFailure
from holdfast.lab.records import Records
from holdfast.lab.texts import cut_text
from holdfast.lab.where import REFERENCE_COLUMN, parse_where

__all__ = ["Handler", "Method", "build_methods"]

Handler = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Method:
    """One call as the wire knows it. A method without a handler is known but not offered by this pool."""

    name: str
    parameters: tuple[Parameter, ...]
    handler: Handler | None
    is_async: bool = False
    needs_session: bool = True
    is_removed: bool = False
    is_internal: bool = False
    """Only for sessions of the hosts themselves."""
    is_sealed: bool = False
    """Known, and refused to everybody."""
    host_at: int | None = None
    """Which parameter names the host that does it."""
    constructs: ClassTable | None = None
    role: str = READ_ONLY
    """The least privileged role that may call it."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of the map that it writes which need another role."""

    @property
    def required_count(self) -> int:
        """How many parameters must be given, the session left out."""
        return sum(parameter.is_required for parameter in self.parameters)

    @property
    def has_optional(self) -> bool:
        """Whether the last parameters may be left out; such a call ignores whatever follows them, too."""
        return self.required_count < len(self.parameters)


def build_methods(datamodel: Datamodel, records: Records, handlers: Mapping[str, Handler]) -> dict[str, Method]:
    """Return every call of the pool by its name; ``handlers`` has those that are not derived."""
    methods: dict[str, Method] = {}
    access = load_access()
    for table in datamodel.classes.values():
        for method in _generic_methods(table, records):
            role = access.role_of_derived(table.name, method.name.partition(".")[2])
            methods[method.name] = replace(method, role=role)
        for call in table.calls.values():
            name = f"{table.name}.{call.name}"
            methods[name] = _own_method(table, call, handlers.get(name) or _plain_setter(table, call))
    for name, method in methods.items():
        if name in handlers:
            methods[name] = replace(method, handler=handlers[name])
    for (cls, spec), keys in access.keys.items():
        for verb in ("add_to", "remove_from"):
            name = f"{cls}.{verb}_{spec}"
            methods[name] = replace(methods[name], keys=keys)
    stray = set(handlers) - set(methods)
    assert not stray, stray
    return methods


def _own_method(table: ClassTable, call: Call, handler: Handler | None) -> Method:
    hosts = [n for n, parameter in enumerate(call.parameters) if parameter.type.spelling == "host ref"]
    return Method(
        f"{table.name}.{call.name}",
        call.parameters,
        handler,
        is_async="async" in call.flags,
        needs_session="open" not in call.flags,
        is_removed="removed" in call.flags,
        is_internal="internal" in call.flags,
        is_sealed=call.role == "host",
        host_at=hosts[0] if "forwarded" in call.flags else None,
        role=NOBODY if call.role == "host" else call.role,
    )


def _plain_setter(table: ClassTable, call: Call) -> Handler | None:
    """Return the plain assignment for a call that sets a field and has no rule of its own."""
    for verb, build in (("set_", _set_field), ("add_to_", _add_to_map), ("remove_from_", _remove_from_map)):
        spec = table.fields.get(call.name.removeprefix(verb))
        if call.name.startswith(verb) and spec is not None:
            return build(table.name, spec.name)
    return None


def _generic_methods(table: ClassTable, records: Records) -> Iterator[Method]:
    if not table.has_objects or "own" in table.flags:
        return
    self_ = Parameter("self", parse_type(f"{table.name} ref"), True)
    for method in _class_methods(table, self_, records):
        yield replace(method, is_removed="removed" in table.flags)
    for spec in table.fields.values():
        for method in _field_methods(table.name, spec, self_, records):
            yield replace(method, is_removed=spec.is_removed)


def _class_methods(table: ClassTable, self_: Parameter, records: Records) -> Iterator[Method]:
    cls = table.name
    yield Method(f"{cls}.get_record", (self_,), _get_record(cls, records))
    uuid = Parameter("uuid", parse_type("string"), True)
    yield Method(f"{cls}.get_by_uuid", (uuid,), lambda context, value: context.db.by_uuid(cls, value))
    if "all" in table.flags:
        yield from _listings(cls, records)
    if "label" in table.flags:
        label = Parameter("label", parse_type("string"), True)
        yield Method(f"{cls}.get_by_name_label", (label,), _get_by_name_label(cls))
    if "crud" in table.flags:
        record = Parameter("args", parse_type(f"{cls} record"), True)
        yield Method(f"{cls}.create", (record,), _create(cls), is_async=True, constructs=table)
        yield Method(f"{cls}.destroy", (self_,), _destroy(cls), is_async=True)


def _listings(cls: str, records: Records) -> Iterator[Method]:
    expression = Parameter("expr", parse_type("string"), True)

    def get_all(context: Context) -> list[str]:
        return [row.ref for row in context.db.rows(cls)]

    def get_all_records_where(context: Context, text: str) -> dict[str, dict[str, object]]:
        matches = parse_where(text, cls=cls)
        found = records.all(cls).items()
        return {ref: record for ref, record in found if matches({**record, REFERENCE_COLUMN: ref})}

    def get_all_where(context: Context, text: str) -> list[str]:
        return list(get_all_records_where(context, text))

    yield Method(f"{cls}.get_all", (), get_all)
    yield Method(f"{cls}.get_all_records", (), lambda context: records.all(cls))
    yield Method(f"{cls}.get_all_where", (expression,), get_all_where)
    yield Method(f"{cls}.get_all_records_where", (expression,), get_all_records_where)


def _get_record(cls: str, records: Records) -> Handler:
    return lambda context, ref: records.record(cls, context.db.row(cls, ref))


def _get_by_name_label(cls: str) -> Handler:
    def find(context: Context, label: str) -> list[str]:
        return [row.ref for row in context.db.rows(cls) if row.fields["name_label"] == label]

    return find


def _create(cls: str) -> Handler:
    return lambda context, record: context.db.create(cls, record)


def _destroy(cls: str) -> Handler:
    def destroy(context: Context, ref: str) -> str:
        context.db.destroy(cls, ref)
        return ""

    return destroy


def _field_methods(cls: str, spec: Field, self_: Parameter, records: Records) -> Iterator[Method]:
    name = spec.name
    yield Method(f"{cls}.get_{name}", (self_,), lambda context, ref: records.field(cls, ref, name))
    if not spec.is_settable:
        return
    value = Parameter("value", spec.type, True)
    yield Method(f"{cls}.set_{name}", (self_, value), _set_field(cls, name))
    if spec.type.kind is Kind.MAP:
        yield from _map_methods(cls, spec, self_)
    if spec.type.kind is Kind.SET:
        yield from _set_methods(cls, spec, self_)


def _set_field(cls: str, name: str) -> Handler:
    def set_field(context: Context, ref: str, new: object) -> str:
        context.db.set(cls, ref, name, new)
        return ""

    return set_field


def _add_to_map(cls: str, name: str) -> Handler:
    def add(context: Context, ref: str, key: str, new: object) -> str:
        with context.db.transaction():
            if key and key in context.db.mapping(cls, ref, name):
                raise ApiFailure("MAP_DUPLICATE_KEY", cls, column_of(name, cls=cls), ref, key)
            context.db.put_key(cls, ref, name, key=key, value=new)
        return ""

    return add


def _remove_from_map(cls: str, name: str) -> Handler:
    def remove(context: Context, ref: str, key: str) -> str:
        context.db.drop_key(cls, ref, name, key=key)
        return ""

    return remove


def _map_methods(cls: str, spec: Field, self_: Parameter) -> Iterator[Method]:
    name = spec.name
    key_type, value_type = cast(Type, spec.type.key), cast(Type, spec.type.item)
    key, value = Parameter("key", key_type, True), Parameter("value", value_type, True)

    yield Method(f"{cls}.add_to_{name}", (self_, key, value), _add_to_map(cls, name))
    yield Method(f"{cls}.remove_from_{name}", (self_, key), _remove_from_map(cls, name))


def _set_methods(cls: str, spec: Field, self_: Parameter) -> Iterator[Method]:
    name = spec.name
    value = Parameter("value", cast(Type, spec.type.item), True)

    def add(context: Context, ref: str, item: str) -> str:
        with context.db.transaction():
            before = context.db.texts(cls, ref, name)
            if item not in before:
                context.db.set(cls, ref, name, [*before, cut_text(item)])
        return ""

    def remove(context: Context, ref: str, item: str) -> str:
        with context.db.transaction():
            context.db.set(cls, ref, name, [x for x in context.db.texts(cls, ref, name) if x != item])
        return ""

    yield Method(f"{cls}.add_{name}", (self_, value), add)
    yield Method(f"{cls}.remove_{name}", (self_, value), remove)
