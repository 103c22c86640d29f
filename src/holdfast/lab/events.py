"""``event.from``: what changed since a token, coalesced, never lost, told a moment late so that it comes together.

An object created and deleted between two calls is not mentioned; several changes are one event with the newest record.
Messages are counted apart, and not at all for a client that did not ask for them. The older ``event.next`` is built on
the same generations, with one queue position per session.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.core import Clock
from holdfast.lab.database import Database, Row
from holdfast.lab.datamodel import SmallInt, parse_whole
from holdfast.lab.errors import ApiFailure
from holdfast.lab.sessions import Sessions

__all__ = ["Events"]

BATCH_S = 0.05
"""How long the pool collects changes before it looks; tasks alone are told at once."""

_REST_S = 0.003
"""The pause after something happened, so that what belongs together comes together; doubled up to ``BATCH_S``."""

_DAY_S = 86400.0
"""How long a call waits whose timeout makes no sense."""

SILENT = frozenset(
    """
    Diagnostics auth data_source event probe_result secret session sr_stat user vdi_nbd_server_info
    """.split()
)
"""Classes whose changes are not told."""

RecordOf = Callable[[str, Row], dict[str, object]]
Event = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a client subscribed to: whole classes, single objects, or everything."""

    everything: bool
    classes: frozenset[str]
    objects: frozenset[tuple[str, str]]

    @classmethod
    def parse(cls, wishes: list[str]) -> _Wish:
        split = [wish.partition("/") for wish in wishes]
        return cls(
            everything="*" in wishes,
            classes=frozenset(name.lower() for name, slash, _ in split if not slash),
            objects=frozenset((name.lower(), ref) for name, slash, ref in split if slash),
        )

    def covers_class(self, name: str) -> bool:
        return self.everything or name in self.classes or any(cls == name for cls, _ in self.objects)

    def covers(self, name: str, ref: str) -> bool:
        return self.everything or name in self.classes or (name, ref) in self.objects

    @property
    def is_tasks_only(self) -> bool:
        return not self.everything and (self.classes | {cls for cls, _ in self.objects}) <= {"task"}


@dataclass(slots=True)
class _Found:
    """What changed, and up to which generation the client knows now."""

    last: int
    last_message: int
    events: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class _Subscription:
    """A session that uses the older calls."""

    since: int
    wishes: list[str] = field(default_factory=list)


class Events:
    """The event interface of one pool."""

    def __init__(self, db: Database, clock: Clock, sessions: Sessions, record_of: RecordOf) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions
        self._record_of = record_of
        self._subscriptions: dict[str, _Subscription] = {}
        self._told = 0
        sessions.on_end(self._forget)

    def _forget(self, session: str) -> None:
        self._subscriptions.pop(session, None)
        self._db.wake()

    def inject(self, cls: str, ref: str) -> str:
        """Mark an object as modified although it is not; return a token after which exactly that is new."""
        with self._db.transaction():
            token = _spell_token(self._db.generation, 0)
            self._db.touch(cls, ref)
            return token

    # -- event.from

    def wait(self, session: str, wishes: list[str], token: str, timeout_s: float) -> dict[str, object]:
        """Return what changed since ``token``, waiting up to ``timeout_s`` for something.

        The new token covers what was told, no more: used with other classes it brings what happened to them before.
        Raises ``SESSION_INVALID`` when the session ends meanwhile.
        """
        found = _Found(*_parse_token(token))
        wish = _Wish.parse(wishes)
        wait_s = timeout_s if 0 <= timeout_s <= _DAY_S else _DAY_S
        deadline_s = self._clock.monotonic_s() + wait_s
        with self._db.lock:
            if token and not wish.is_tasks_only:
                self._settle(min(BATCH_S, wait_s))
            rest_s = _REST_S
            while not (found := self._collect(wish, found)).events:
                left_s = deadline_s - self._clock.monotonic_s()
                if left_s <= 0:
                    break
                self._db.changed.wait(min(left_s, 1.0))
                self._assert_open(session)
                self._settle(min(rest_s, max(0.0, deadline_s - self._clock.monotonic_s())))
                rest_s = min(BATCH_S, 2 * rest_s)
            counts = {name.lower(): SmallInt(self._db.count(name)) for name in self._db.datamodel.classes}
            last_message = found.last_message if wish.covers_class("message") else 0
            return {
                "events": found.events,
                "valid_ref_counts": counts,
                "token": _spell_token(found.last, last_message),
            }

    def _assert_open(self, session: str) -> None:
        if not self._sessions.is_open(session):
            raise ApiFailure("SESSION_INVALID", session)

    def _settle(self, duration_s: float) -> None:
        end_s = self._clock.monotonic_s() + duration_s
        while (left_s := end_s - self._clock.monotonic_s()) > 0:
            self._db.changed.wait(left_s)

    def _collect(self, wish: _Wish, before: _Found) -> _Found:
        found = _Found(before.last, before.last_message)
        added: list[Event] = []
        changed: list[Event] = []
        for cls in self._db.datamodel.classes:
            name = cls.lower()
            if cls in SILENT or cls == "message" or not wish.covers_class(name) or self._db.latest(cls) <= before.last:
                continue
            for row in self._db.rows(cls):
                if row.modified > before.last and wish.covers(name, row.ref):
                    is_new = row.created > before.last
                    generation = row.created if is_new else row.modified
                    event = _event(generation, name, "add" if is_new else "mod", row.ref)
                    event["snapshot"] = self._record_of(cls, row)
                    (added if is_new else changed).append(event)
                    found.last = max(found.last, row.modified)
        gone = self._gone(wish, before, found)
        found.events = [*self._messages(wish, before, found), *added, *changed, *gone]
        return found

    def _gone(self, wish: _Wish, before: _Found, found: _Found) -> list[Event]:
        """Return the deletions of what the client knows, latest first."""
        events: list[Event] = []
        for deletion in reversed(self._db.deletions):
            if deletion.deleted <= before.last:
                break
            name = deletion.cls.lower()
            if deletion.cls in SILENT or name == "message" or not wish.covers(name, deletion.ref):
                continue
            found.last = max(found.last, deletion.deleted)
            if deletion.created <= before.last:
                events.append(_event(deletion.deleted, name, "del", deletion.ref))
        return events

    def _messages(self, wish: _Wish, before: _Found, found: _Found) -> list[Event]:
        """Return the news about messages. Their deletion is told to everybody, whether he knew them or not."""
        since = before.last_message
        if not wish.covers_class("message") or self._db.latest("message") <= since:
            return []
        found.last_message = max(since, self._db.latest("message"))
        events: list[Event] = []
        for deletion in reversed(self._db.deletions):
            if deletion.deleted <= since:
                break
            if deletion.cls == "message" and wish.covers("message", deletion.ref):
                events.append(_event(0, "message", "del", deletion.ref))
        for row in reversed(self._db.rows("message")):
            if row.created > since and wish.covers("message", row.ref):
                event = _event(0, "message", "add", row.ref)
                event["snapshot"] = self._record_of("message", row)
                events.append(event)
        return events

    # -- the older calls

    def register(self, session: str, wishes: list[str]) -> None:
        """Let ``event.next`` of the session tell of these from now on, too."""
        with self._db.lock:
            subscription = self._subscriptions.setdefault(session, _Subscription(self._db.generation))
            subscription.wishes = [*wishes, *subscription.wishes]

    def unregister(self, session: str, wishes: list[str]) -> None:
        """Let ``event.next`` of the session tell of these no more; the session stays registered."""
        with self._db.lock:
            subscription = self._subscriptions.setdefault(session, _Subscription(self._db.generation))
            subscription.wishes = [wish for wish in subscription.wishes if wish not in wishes]

    def next(self, session: str) -> list[Event]:
        """Return what happened since the last call, waiting for something for as long as it takes.

        ``SESSION_NOT_REGISTERED`` for a session that never registered, ``EVENTS_LOST`` when too much happened.
        """
        with self._db.lock:
            while True:
                subscription = self._subscriptions.get(session)
                if subscription is None:
                    track = hashlib.md5(session.encode(), usedforsecurity=False).hexdigest()
                    raise ApiFailure("SESSION_NOT_REGISTERED", f"trackid={track}")
                if self._db.has_forgotten(subscription.since):
                    subscription.since = self._db.generation
                    raise ApiFailure("EVENTS_LOST")
                before = _Found(subscription.since, subscription.since)
                subscription.since = self._db.generation
                found = self._collect(_Wish.parse(subscription.wishes), before)
                if found.events:
                    return [self._old_style(event) for event in found.events]
                self._db.changed.wait(1.0)
                self._assert_open(session)

    def _old_style(self, event: Event) -> Event:
        self._told += 1
        stamp = f"{self._clock.now().timestamp():.0f}."
        return {**event, "id": str(self._told - 1), "timestamp": stamp}

    def current_id(self) -> int:
        """Return how many events the older calls have told of."""
        return self._told


def _event(generation: int, name: str, operation: str, ref: str) -> Event:
    return {"id": str(generation), "timestamp": "0.0", "class": name, "operation": operation, "ref": ref}


def _spell_token(generation: int, message_generation: int) -> str:
    return f"{generation:020d},{message_generation:020d}"


def _parse_token(token: str) -> tuple[int, int]:
    if token == "":
        return 0, 0
    try:
        first, second = token.split(",")
        return parse_whole(first), parse_whole(second)
    except ValueError as cause:
        raise ApiFailure("EVENT_FROM_TOKEN_PARSE_FAILURE", token) from cause
