"""Sessions: who is logged in, since when, with which rights, and when the pool forgets them.

Invariant: a session reference that was given out is valid until logout, expiry or displacement, and never again.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import timedelta
from typing import cast

from holdfast.core import Clock, Secret
from holdfast.lab.database import Database, Fields, Row
from holdfast.lab.datamodel import NULL_REF, DateTime
from holdfast.lab.directory import Account, Directory
from holdfast.lab.errors import ApiFailure
from holdfast.lab.rbac import Rbac

__all__ = [
    "SESSIONS_ANONYMOUS_MAX",
    "SESSIONS_PER_ORIGINATOR_MAX",
    "SESSION_IDLE_HOURS_MAX",
    "SESSION_SWEEP_S",
    "Sessions",
]

SESSIONS_PER_ORIGINATOR_MAX = 500
"""The pool's own limit, per originator and per user; the sessions idle longest are dropped."""

SESSIONS_ANONYMOUS_MAX = 400
"""The pool's own limit for sessions without an originator, and for those of its hosts."""

SESSION_IDLE_HOURS_MAX = 24
"""The pool's own limit."""

SESSION_SWEEP_S = 30.0
"""How often the pool looks for sessions to end."""

_TOUCH_S = 600.0
"""``last_active`` is written at most this often."""

_REVALIDATE_S = 1800.0
"""How long a pool believes that a user of the directory still has his rights."""


_SYSTEM_ACCOUNTS = frozenset("root bin daemon lp sync mail games man nobody".split())
"""Accounts that the system of a host has: to the others it says that it does not know them."""


class Sessions:
    """The sessions of one pool. Safe to use from any thread."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        user: str,
        password: Secret,
        directory: Directory | None = None,
        pool_secret: Secret | None = None,
        keep_password: Callable[[str], None] = lambda password: None,
    ) -> None:
        self.directory = directory or Directory(is_joined=False)
        self.rbac = Rbac()
        self._db = db
        self._clock = clock
        self._user = user
        self._password = password
        self._pool_secret = pool_secret or password
        self._keep_password = keep_password
        self._used_s: dict[str, float] = {}
        self._told_s: dict[str, float] = {}
        """When ``last_active`` was last written."""
        self._validated_s: dict[str, float] = {}
        self._local: set[str] = set()
        """Sessions for emergencies, which are in no database."""
        self._end_listeners: list[Callable[[str], None]] = []

    def on_end(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the reference of every session that ends."""
        self._end_listeners.append(listener)

    def check_password(self, user: str, password: str) -> None:
        """Return when user and password are right; ``SESSION_AUTHENTICATION_FAILED`` otherwise.

        Users of the directory have the lab's password, too.
        """
        user, password = user.partition("\0")[0], password.partition("\0")[0]  # as C reads them
        is_known = user == self._user or self.directory.find(user) is not None
        if is_known and hmac.compare_digest(password.encode(), self._password.reveal().encode()):
            return
        reason = "User not known to the underlying authentication module"
        if is_known or user in _SYSTEM_ACCOUNTS:
            reason = "Authentication failure"
        raise ApiFailure("SESSION_AUTHENTICATION_FAILED", user, reason)

    def check_superuser(self, user: str, password: str) -> None:
        """Do as ``check_password`` for the superuser alone."""
        if self.directory.find(user) is not None and user != self._user:
            raise ApiFailure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
        self.check_password(user, password)

    def is_pool_secret(self, secret: str) -> bool:
        """Whether this is what only the pool's hosts know."""
        return hmac.compare_digest(secret.encode(), self._pool_secret.reveal().encode())

    def change_password(self, password: str) -> None:
        """Make this the password from now on, of the next run, too; open sessions stay."""
        self._password = Secret(password)
        self._keep_password(password)

    def open(self, *, user: str, originator: str, host: str, is_pool: bool = False, parent: str = NULL_REF) -> str:
        """Return a new session for a user whose password was checked.

        A user of the directory must be a subject of the pool with a role: ``SESSION_AUTHORIZATION_FAILED`` or
        ``RBAC_PERMISSION_DENIED`` otherwise.
        """
        account = None if is_pool or user == self._user else self.directory.find(user)
        with self._db.transaction():
            rights = self._rights(user, account) if account is not None else {"is_local_superuser": True}
            now = DateTime.of(self._clock.now())
            fields: Fields = {
                "this_host": host,
                "this_user": NULL_REF,
                "last_active": now,
                "validation_time": now,
                "auth_user_name": account.subject_name if account is not None else user,
                "originator": originator,
                "pool": is_pool,
                "parent": parent,
                **rights,
            }
            self._make_room(fields)
            ref = self._db.create("session", fields)
            self._used_s[ref] = self._told_s[ref] = self._validated_s[ref] = self._clock.monotonic_s()
            return ref

    def _rights(self, user: str, account: Account) -> Fields:
        subject = self._subject(account.sid)
        if subject is None:
            text = f"Subject {user} (identifier {account.sid}, from the lab) has no access rights in this pool"
            raise ApiFailure("SESSION_AUTHORIZATION_FAILED", user, text)
        permissions = self.rbac.permissions_of(cast("list[str]", subject.fields["roles"]))
        if not permissions:
            text = f"Subject {user} (identifier {account.sid}) has no roles in this pool"
            raise ApiFailure("RBAC_PERMISSION_DENIED", "session.login_with_password", text)
        return {
            "is_local_superuser": False,
            "subject": subject.ref,
            "auth_user_sid": account.sid,
            "rbac_permissions": permissions,
        }

    def _subject(self, sid: str) -> Row | None:
        rows = self._db.rows("subject")
        return next((row for row in rows if row.fields["subject_identifier"] == sid), None)

    def _make_room(self, fresh: Fields) -> None:
        """Drop the sessions idle longest where one more of the same kind would be too many."""
        kind = _kind(fresh)
        same = [row for row in self._db.rows("session") if _kind(row.fields) == kind]
        limit = SESSIONS_ANONYMOUS_MAX if kind in _NAMELESS else SESSIONS_PER_ORIGINATOR_MAX
        excess = len(same) - limit + 1
        if excess > 0:
            spare = [row.ref for row in same if not self._is_working(row)]
            for ref in sorted(spare, key=lambda ref: self._used_s.get(ref, 0.0))[:excess]:
                self.close(ref)

    def _is_working(self, row: Row) -> bool:
        """Whether a task of the session still runs; such a session is never dropped."""
        tasks = (self._db.find("task", task) for task in cast("list[str]", row.fields["tasks"]))
        return any(task is not None and task.fields["status"] in ("pending", "cancelling") for task in tasks)

    def check(self, ref: str) -> None:
        """Return when the session is valid, and count it as used; ``SESSION_INVALID`` otherwise."""
        if ref in self._local:
            return
        now_s = self._clock.monotonic_s()
        row = self._db.find("session", ref)
        used_s = self._used_s.get(ref)
        if row is None or used_s is None:
            raise ApiFailure("SESSION_INVALID", ref)
        if now_s - used_s > timedelta(hours=SESSION_IDLE_HOURS_MAX).total_seconds() and not self._is_working(row):
            self.close(ref)
            raise ApiFailure("SESSION_INVALID", ref)
        self._used_s[ref] = now_s
        if now_s - self._told_s.get(ref, 0.0) > _TOUCH_S:
            self._told_s[ref] = now_s
            self._db.set("session", ref, "last_active", DateTime.of(self._clock.now()))

    def sweep(self) -> None:
        """End the sessions that were idle for a day, and those of users who lost their rights."""
        now_s = self._clock.monotonic_s()
        idle_s_max = timedelta(hours=SESSION_IDLE_HOURS_MAX).total_seconds()
        for row in self._db.rows("session"):
            is_old = now_s - self._used_s.get(row.ref, now_s) > idle_s_max
            if (is_old and not self._is_working(row)) or self._has_lost_rights(row):
                self.close(row.ref)

    def _has_lost_rights(self, row: Row) -> bool:
        if row.fields["is_local_superuser"] or row.fields["client_certificate"]:
            return False
        if self._clock.monotonic_s() < self._validated_s.get(row.ref, 0.0) + _REVALIDATE_S:
            return False
        if self._subject(cast(str, row.fields["auth_user_sid"])) is None:
            return True
        self._validated_s[row.ref] = self._clock.monotonic_s()
        self._db.set("session", row.ref, "validation_time", DateTime.of(self._clock.now()))
        return False

    def is_valid(self, ref: str) -> bool:
        """Whether the session would pass ``check``; counts as use."""
        try:
            self.check(ref)
        except ApiFailure:
            return False
        return True

    def is_open(self, ref: str) -> bool:
        """Whether the session has not ended; does not count as use."""
        return ref in self._local or self._db.exists("session", ref)

    def user_of(self, ref: str) -> str:
        """Return the name of the session's user."""
        return cast(str, self._db.get("session", ref, "auth_user_name"))

    def is_pool(self, ref: str) -> bool:
        """Whether it is a session of one of the hosts themselves."""
        row = self._db.find("session", ref)
        return row is not None and bool(row.fields["pool"])

    def close(self, ref: str) -> None:
        """End a session; calls that wait in it are woken. Safe to call twice."""
        with self._db.transaction():
            for times in (self._used_s, self._told_s, self._validated_s):
                times.pop(ref, None)
            if self._db.exists("session", ref):
                self._db.destroy("session", ref)
                for listener in self._end_listeners:
                    listener(ref)

    def open_local(self, ref: str) -> str:
        """Make ``ref`` a session of the kind that works without a database, and return it."""
        self._local.add(ref)
        return ref

    def close_local(self, ref: str) -> None:
        """End a session of that kind; nothing happens to others."""
        self._local.discard(ref)

    def close_all(self) -> None:
        """End every session, as a restart of the tool stack does."""
        self._local.clear()
        for row in self._db.rows("session"):
            self.close(row.ref)


_NAMELESS = (("pool", ""), ("anonymous", ""))


def _kind(fields: Fields) -> tuple[str, str]:
    """Return what a session counts against: the pool's own, its user, its originator, or nobody in particular."""
    if fields["pool"]:
        return _NAMELESS[0]
    if not fields["is_local_superuser"]:
        return "user", cast(str, fields["auth_user_name"])
    originator = cast(str, fields["originator"])
    return ("originator", originator) if originator else _NAMELESS[1]
