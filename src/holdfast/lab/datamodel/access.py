"""Who may do what, as data: least privileged roles of derived calls, of HTTP handlers and of single keys of maps.

The table is the lab's own compact notation:

    writers      role  classes             who may change objects of these classes; 'pool-operator' where none is named
    calls        role  calls               exceptions for single calls
    certificate  calls                     also open to a host with a client certificate
    key          Class.field  role  keys   keys that need this role instead; '*' stands for any ending
    http         name  verb  path  role  flags
    extra        permission  role

Invariant: roles form one ladder; whoever stands higher may do all that those below may.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

__all__ = ["NOBODY", "READ_ONLY", "ROLES", "Access", "Door", "load_access"]

READ_ONLY = "read-only"
NOBODY = "none"
"""The 'role' of calls that only the local superuser may make."""

ROLES = {
    "pool-admin": "May do everything, on the hosts themselves, too, and decides who may do what.",
    "pool-operator": "Looks after hosts, storage and the pool as a whole.",
    "vm-power-admin": "May do everything with VMs and templates, snapshots and placement included.",
    "vm-admin": "Makes, changes and removes VMs and templates.",
    "vm-operator": "Uses VMs and their consoles.",
    "client-cert": "A host or service that shows a client certificate.",
    READ_ONLY: "Looks and changes nothing.",
}
"""Every role with what it is for, the most privileged first."""


@dataclass(frozen=True, slots=True)
class Door:
    """One HTTP handler. Without a verb it is only a permission that another handler asks for."""

    name: str
    verb: str
    path: str
    role: str
    is_open: bool
    takes_certificate: bool


@dataclass(slots=True)
class Access:
    """The table."""

    writers: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    certificate: set[str] = field(default_factory=set)
    keys: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """``(class, field)`` to role by protected key."""
    doors: list[Door] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)

    def role_of_derived(self, cls: str, call: str) -> str:
        """Return the least role for a call that is derived from the class's fields."""
        exception = self.calls.get(f"{cls}.{call}")
        if exception is not None:
            return exception
        return READ_ONLY if call.startswith("get_") else self.writers.get(cls, "pool-operator")

    def roles_from(self, least: str, *, takes_certificate: bool) -> list[str]:
        """Return every role that may do what ``least`` may."""
        if least == NOBODY:
            return []
        ladder = list(ROLES)
        allowed = [role for role in ladder[: ladder.index(least) + 1] if role != "client-cert"]
        return [*allowed, "client-cert"] if takes_certificate or least == READ_ONLY else allowed


@cache
def load_access() -> Access:
    """Return the table; it is read once per process and never changed."""
    access = Access()
    text = resources.files(__package__).joinpath("access.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            keyword, *columns = re.split(r"\s{2,}", line.strip())
            _READERS[keyword](access, columns)
    return access


def _read_writers(access: Access, columns: list[str]) -> None:
    access.writers.update(dict.fromkeys(columns[1].split(), columns[0]))


def _read_calls(access: Access, columns: list[str]) -> None:
    access.calls.update(dict.fromkeys(columns[1].split(), columns[0]))


def _read_certificate(access: Access, columns: list[str]) -> None:
    access.certificate.update(columns[0].split())


def _read_key(access: Access, columns: list[str]) -> None:
    cls, _, name = columns[0].partition(".")
    keys = access.keys.setdefault((cls, name), {})
    keys.update(dict.fromkeys(columns[2].split(), columns[1]))


def _read_http(access: Access, columns: list[str]) -> None:
    name, verb, path, role, *flags = columns
    access.doors.append(Door(name, verb.strip("-"), path.strip("-"), role, "open" in flags, "certificate" in flags))


def _read_extra(access: Access, columns: list[str]) -> None:
    access.extra[columns[0]] = columns[1]


_READERS = {
    "writers": _read_writers,
    "calls": _read_calls,
    "certificate": _read_certificate,
    "key": _read_key,
    "http": _read_http,
    "extra": _read_extra,
}
