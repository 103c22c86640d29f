"""Sessions: who is logged in, since when, and when the pool forgets them.

Invariant: a session reference that was given out is valid until logout, expiry or displacement, and never again.
"""

from __future__ import annotations

import hmac
from datetime import timedelta
from typing import cast

from holdfast.core import Clock, Secret
from holdfast.lab.database import Database
from holdfast.lab.datamodel import NULL_REF, DateTime
from holdfast.lab.errors import ApiFailure

__all__ = ["SESSIONS_PER_ORIGINATOR_MAX", "SESSION_IDLE_HOURS_MAX", "Sessions"]

SESSIONS_PER_ORIGINATOR_MAX = 500
"""The pool's own limit, per originator and per user; the sessions idle longest are dropped."""

SESSION_IDLE_HOURS_MAX = 24
"""The pool's own limit."""


class Sessions:
    """The sessions of one pool. Safe to use from any thread."""

    def __init__(self, db: Database, clock: Clock, *, user: str, password: Secret) -> None:
        self._db = db
        self._clock = clock
        self._user = user
        self._password = password
        self._used_s: dict[str, float] = {}

    def check_password(self, user: str, password: str) -> None:
        """Return when user and password are right; ``SESSION_AUTHENTICATION_FAILED`` otherwise."""
        if user == self._user and hmac.compare_digest(password.encode(), self._password.reveal().encode()):
            return
        reason = "Authentication failure" if user else "User not known to the underlying authentication module"
        raise ApiFailure("SESSION_AUTHENTICATION_FAILED", user, reason)

    def change_password(self, password: str) -> None:
        """Make this the password from now on; open sessions stay."""
        self._password = Secret(password)

    def open(self, *, user: str, originator: str, host: str) -> str:
        """Return a new session for a user whose password was checked."""
        with self._db.transaction():
            self._make_room(originator)
            now = DateTime.of(self._clock.now())
            ref = self._db.create(
                "session",
                {
                    "this_host": host,
                    "this_user": NULL_REF,
                    "last_active": now,
                    "validation_time": now,
                    "is_local_superuser": True,
                    "auth_user_name": user,
                    "originator": originator,
                },
            )
            self._used_s[ref] = self._clock.monotonic_s()
            return ref

    def _make_room(self, originator: str) -> None:
        same = [row.ref for row in self._db.rows("session") if row.fields["originator"] == originator]
        excess = len(same) - SESSIONS_PER_ORIGINATOR_MAX + 1
        if excess > 0:
            for ref in sorted(same, key=lambda ref: self._used_s.get(ref, 0.0))[:excess]:
                self.close(ref)

    def check(self, ref: str) -> None:
        """Return when the session is valid, and count it as used; ``SESSION_INVALID`` otherwise."""
        now_s = self._clock.monotonic_s()
        used_s = self._used_s.get(ref)
        if used_s is None or not self._db.exists("session", ref):
            raise ApiFailure("SESSION_INVALID", ref)
        if now_s - used_s > timedelta(hours=SESSION_IDLE_HOURS_MAX).total_seconds():
            self.close(ref)
            raise ApiFailure("SESSION_INVALID", ref)
        self._used_s[ref] = now_s

    def is_valid(self, ref: str) -> bool:
        """Whether the session would pass ``check``; counts as use."""
        try:
            self.check(ref)
        except ApiFailure:
            return False
        return True

    def user_of(self, ref: str) -> str:
        """Return the name of the session's user."""
        return cast(str, self._db.get("session", ref, "auth_user_name"))

    def close(self, ref: str) -> None:
        """End a session; calls that wait in it are woken. Safe to call twice."""
        with self._db.transaction():
            self._used_s.pop(ref, None)
            if self._db.exists("session", ref):
                self._db.destroy("session", ref)

    def close_all(self) -> None:
        """End every session, as a restart of the tool stack does."""
        for row in self._db.rows("session"):
            self.close(row.ref)
