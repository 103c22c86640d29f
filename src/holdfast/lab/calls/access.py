"""Calls of roles, of subjects (users with rights) and of the directory that vouches for them."""

from __future__ import annotations

from typing import cast

from holdfast.lab.context import CallSet, Context
from holdfast.lab.database import Fields
from holdfast.lab.directory import Account
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rbac import Role

__all__ = ["add_subject", "calls"]

calls = CallSet()

_EXPRESSION_ROLES = "subroles<>[]"
_EXPRESSION_PERMISSIONS = "subroles=[]"


# -- roles: they are the same in every pool, and none of them is in the database


def _role(context: Context, ref: str) -> Role:
    role = context.pool.sessions.rbac.roles.get(ref)
    if role is None:
        raise ApiFailure("HANDLE_INVALID", "role", ref)
    return role


def _matching(context: Context, expression: str) -> list[Role]:
    """The pool knows two expressions here and takes everything else for all."""
    roles = list(context.pool.sessions.rbac.roles.values())
    if expression == _EXPRESSION_ROLES:
        return [role for role in roles if role.parts]
    if expression == _EXPRESSION_PERMISSIONS:
        return [role for role in roles if not role.parts]
    return roles


@calls.on("role.get_all")
def get_all_roles(context: Context) -> list[str]:
    """Return every role and permission."""
    return list(context.pool.sessions.rbac.roles)


@calls.on("role.get_all_where")
def get_all_roles_where(context: Context, expression: str) -> list[str]:
    """Return the roles, the permissions, or both."""
    return [role.ref for role in _matching(context, expression)]


@calls.on("role.get_all_records")
def get_all_role_records(context: Context) -> dict[str, dict[str, object]]:
    """Return every role and permission with its record."""
    return {role.ref: role.record() for role in _matching(context, "")}


@calls.on("role.get_all_records_where")
def get_all_role_records_where(context: Context, expression: str) -> dict[str, dict[str, object]]:
    """Return the roles, the permissions, or both, with their records."""
    return {role.ref: role.record() for role in _matching(context, expression)}


@calls.on("role.get_record")
def get_role_record(context: Context, ref: str) -> dict[str, object]:
    """Return one role."""
    return _role(context, ref).record()


@calls.on("role.get_by_uuid")
def get_role_by_uuid(context: Context, uuid: str) -> str:
    """Return the role with this identity."""
    ref = f"OpaqueRef:{uuid}"
    if ref not in context.pool.sessions.rbac.roles:
        raise ApiFailure("UUID_INVALID", "role", uuid)
    return ref


@calls.on("role.get_by_name_label")
def get_role_by_name_label(context: Context, label: str) -> list[str]:
    """Return the role of this name."""
    role = context.pool.sessions.rbac.by_label(label)
    return [role.ref] if role is not None else []


def _add_role_getters() -> None:
    for field in ("uuid", "name_label", "name_description", "subroles", "is_internal"):

        @calls.on(f"role.get_{field}")
        def get_field(context: Context, ref: str, *, field: str = field) -> object:
            return _role(context, ref).record()[field]


_add_role_getters()


def _parts(context: Context, role: Role) -> list[Role]:
    roles = context.pool.sessions.rbac.roles
    return [roles[part] for part in role.parts] or [role]


@calls.on("role.get_permissions")
def get_permissions(context: Context, ref: str) -> list[str]:
    """Return what a role consists of; a permission consists of itself."""
    return [part.ref for part in _parts(context, _role(context, ref))]


@calls.on("role.get_permissions_name_label")
def get_permissions_name_label(context: Context, ref: str) -> list[str]:
    """Return the names of what a role consists of."""
    return [part.label for part in _parts(context, _role(context, ref))]


@calls.on("role.get_by_permission")
def get_by_permission(context: Context, permission: str) -> list[str]:
    """Return the roles that have a permission."""
    role = context.pool.sessions.rbac.roles.get(permission)
    return get_by_permission_name_label(context, role.label) if role is not None else []


@calls.on("role.get_by_permission_name_label")
def get_by_permission_name_label(context: Context, label: str) -> list[str]:
    """Return the roles that have the permission of this name."""
    return [role.ref for role in context.pool.sessions.rbac.roles_with(label)]


# -- subjects


def add_subject(context: Context, account: Account, roles: list[str]) -> str:
    """Make a user of the directory a subject of the pool with these roles."""
    return context.db.create(
        "subject",
        {"subject_identifier": account.sid, "other_config": account.information(), "roles": roles},
    )


def _assert_directory(context: Context) -> None:
    if not context.pool.sessions.directory.is_joined:
        raise ApiFailure("AUTH_IS_DISABLED")


@calls.on("subject.create")
def create_subject(context: Context, record: Fields) -> str:
    """Make a user of the directory a subject without a role; what the caller says about him is not believed."""
    sid = str(record["subject_identifier"])
    if any(row.fields["subject_identifier"] == sid for row in context.db.rows("subject")):
        raise ApiFailure("SUBJECT_ALREADY_EXISTS")
    _assert_directory(context)
    account = context.pool.sessions.directory.by_sid(sid)
    if account is None:
        raise ApiFailure("SUBJECT_CANNOT_BE_RESOLVED")
    admin = context.pool.sessions.rbac.by_label("pool-admin")
    assert admin is not None
    return add_subject(context, account, [admin.ref] if context.pool.is_restricted("rbac") else [])


@calls.on("subject.add_to_roles")
def add_to_roles(context: Context, subject: str, role: str) -> str:
    """Give a subject a role; its sessions keep the rights they began with."""
    _assert_role_feature(context)
    if role not in context.pool.sessions.rbac.roles:
        raise ApiFailure("ROLE_NOT_FOUND")
    with context.db.transaction():
        before = context.db.texts("subject", subject, "roles")
        if role in before:
            raise ApiFailure("ROLE_ALREADY_EXISTS")
        context.db.set("subject", subject, "roles", [*before, role])
    return ""


@calls.on("subject.remove_from_roles")
def remove_from_roles(context: Context, subject: str, role: str) -> str:
    """Take a role from a subject."""
    _assert_role_feature(context)
    with context.db.transaction():
        before = context.db.texts("subject", subject, "roles")
        if role not in before:
            raise ApiFailure("ROLE_NOT_FOUND")
        context.db.set("subject", subject, "roles", [each for each in before if each != role])
    return ""


def _assert_role_feature(context: Context) -> None:
    if context.pool.is_restricted("rbac"):
        raise ApiFailure("LICENCE_RESTRICTION", "RBAC")


@calls.on("subject.get_permissions_name_label")
def get_subject_permissions(context: Context, subject: str) -> list[str]:
    """Return all that a subject may do."""
    rbac = context.pool.sessions.rbac
    labels: dict[str, None] = {}
    for ref in context.db.texts("subject", subject, "roles"):
        labels.update(dict.fromkeys(get_permissions_name_label(context, ref) if ref in rbac.roles else []))
    return list(labels)


# -- the directory


@calls.on("auth.get_subject_identifier")
def get_subject_identifier(context: Context, name: str) -> str:
    """Return how the pool identifies a user of the directory."""
    _assert_directory(context)
    account = context.pool.sessions.directory.find(name)
    if account is None:
        raise ApiFailure("SUBJECT_CANNOT_BE_RESOLVED")
    return account.sid


@calls.on("auth.get_subject_information_from_identifier")
def get_subject_information(context: Context, identifier: str) -> dict[str, str]:
    """Return what the pool, or else the directory, knows of a user."""
    for row in context.db.rows("subject"):
        if row.fields["subject_identifier"] == identifier:
            return cast("dict[str, str]", row.fields["other_config"])
    _assert_directory(context)
    account = context.pool.sessions.directory.by_sid(identifier)
    if account is None:
        raise ApiFailure("SUBJECT_CANNOT_BE_RESOLVED")
    return account.information()


@calls.on("auth.get_group_membership")
def get_group_membership(context: Context, identifier: str) -> list[str]:
    """Return the groups of a user; the lab's directory has none."""
    _assert_directory(context)
    if context.pool.sessions.directory.by_sid(identifier) is None:
        raise ApiFailure("SUBJECT_CANNOT_BE_RESOLVED")
    return []
