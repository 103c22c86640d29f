"""Roles and permissions: what a session's user may do, and the pool's words for what he may not.

A permission is the name of a call in small letters; roles are sets of permissions. Both are records of the class
``role`` with identities that are the same in every pool. Invariant: the local superuser may do everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from holdfast.lab.database import Database
from holdfast.lab.datamodel import ROLES, Access, load_access
from holdfast.lab.errors import ApiFailure

__all__ = ["HTTP_PREFIX", "Rbac", "Role"]

HTTP_PREFIX = "http/"

_POOL_ADMIN_UUID = "0165f154-ba3e-034e-6b27-5d271af109ba"
"""The one role whose identity is not derived from its name."""

_TOLD_ORDER = (
    "vm-power-admin",
    "vm-admin",
    "vm-operator",
    "read-only",
    "client-cert",
    "pool-admin",
    "pool-operator",
)
"""The order in which a pool names the roles that would be allowed."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role, or a permission: a role without parts."""

    ref: str
    uuid: str
    label: str
    description: str
    parts: tuple[str, ...]
    """References of its permissions."""
    is_internal: bool

    def record(self) -> dict[str, object]:
        """Return it as clients read it."""
        return {
            "uuid": self.uuid,
            "name_label": self.label,
            "name_description": self.description,
            "subroles": list(self.parts),
            "is_internal": self.is_internal,
        }


def _uuid(name: str) -> str:
    text = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Rbac:
    """All roles of a pool. Built once, never changed after ``learn``."""

    def __init__(self) -> None:
        self._access = load_access()
        self.roles: dict[str, Role] = {}
        """By reference: permissions first, then the roles proper."""
        self._by_label: dict[str, Role] = {}
        self._allowed: dict[str, frozenset[str]] = {}
        """Permission to the roles that have it."""

    def learn(self, calls: Mapping[str, str]) -> None:
        """Take in every call with its least role; call once."""
        assert not self.roles
        permissions = dict(_permissions(self._access, calls))
        parts: dict[str, list[str]] = {label: [] for label in _TOLD_ORDER}
        for name, allowed in permissions.items():
            if not allowed:
                continue
            uuid = _uuid(name)
            self._add(Role(f"OpaqueRef:{uuid}", uuid, name.lower(), "A basic permission", (), True))
            self._allowed[name.lower()] = frozenset(allowed)
            for label in allowed:
                parts[label].append(f"OpaqueRef:{uuid}")
        for label in _TOLD_ORDER:
            uuid = _POOL_ADMIN_UUID if label == "pool-admin" else _uuid(label)
            is_internal = label == "client-cert"
            self._add(Role(f"OpaqueRef:{uuid}", uuid, label, ROLES[label], tuple(parts[label]), is_internal))

    def _add(self, role: Role) -> None:
        self.roles[role.ref] = role
        self._by_label[role.label] = role

    def by_label(self, label: str) -> Role | None:
        """Return the role or permission of this name."""
        return self._by_label.get(label)

    def permissions_of(self, refs: Iterable[str]) -> list[str]:
        """Return the names of the roles with all the permissions they have, each once; unknown references are none."""
        labels: dict[str, None] = {}
        for ref in refs:
            role = self.roles.get(ref)
            if role is not None:
                labels[role.label] = None
                labels.update(dict.fromkeys(self.roles[part].label for part in role.parts))
        return list(labels)

    def roles_with(self, permission: str) -> list[Role]:
        """Return the roles that have a permission."""
        allowed = self._allowed.get(permission, frozenset())
        return [self._by_label[label] for label in _TOLD_ORDER if label in allowed]

    def permission_for(self, call: str, keys: Mapping[str, str], key: str) -> str:
        """Return the permission that a call on a map needs for this key."""
        for protected in keys:
            matches = key.startswith(protected[:-1]) if protected.endswith("*") else key == protected
            if matches:
                return f"{call}/key:{protected}".lower()
        return call.lower()

    def is_allowed(self, db: Database, session: str, permission: str) -> bool:
        """Whether the user of a session has a permission."""
        row = db.find("session", session)
        if row is None or row.fields["is_local_superuser"]:
            return True
        return permission in cast("list[str]", row.fields["rbac_permissions"])

    def check(self, db: Database, session: str, permission: str) -> None:
        """Return when the user of the session may; ``RBAC_PERMISSION_DENIED`` otherwise."""
        if not self.is_allowed(db, session, permission):
            raise self.denial(permission)

    def denial(self, permission: str) -> ApiFailure:
        """Return the refusal for want of a permission, with who would be allowed."""
        names = ", ".join(role.label for role in self.roles_with(permission))
        text = f"No permission in user session. (Roles with this permission: {names})"
        return ApiFailure("RBAC_PERMISSION_DENIED", permission, text)


def _permissions(access: Access, calls: Mapping[str, str]) -> Iterable[tuple[str, list[str]]]:
    for name, least in calls.items():
        yield name, access.roles_from(least, takes_certificate=name in access.certificate)
    for (cls, field), keys in access.keys.items():
        for verb in ("add_to", "remove_from"):
            for key, least in keys.items():
                yield f"{cls}.{verb}_{field}/key:{key}", access.roles_from(least, takes_certificate=False)
    for door in access.doors:
        yield HTTP_PREFIX + door.name, access.roles_from(door.role, takes_certificate=door.takes_certificate)
    for name, least in access.extra.items():
        yield name, access.roles_from(least, takes_certificate=False)
