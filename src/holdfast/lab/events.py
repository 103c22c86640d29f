"""``event.from``: what changed since a token, coalesced, never lost, told a moment late so that it comes together.

An object created and deleted between two calls is not mentioned; several changes are one event with the newest record.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.core import Clock
from holdfast.lab.database import Database, Row
from holdfast.lab.errors import ApiFailure
from holdfast.lab.sessions import Sessions

__all__ = ["Events"]

BATCH_S = 0.05
"""How long the pool collects changes before it answers; tasks alone are told at once."""

SILENT = frozenset({"session", "user", "role", "event", "auth", "subject"})
"""Classes whose changes are not told."""

_TOKEN = re.compile(r"(-?\d+),(-?\d+)")

RecordOf = Callable[[str, Row], dict[str, object]]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a client subscribed to: whole classes, single objects, or everything."""

    everything: bool
    classes: frozenset[str]
    objects: frozenset[tuple[str, str]]

    @classmethod
    def parse(cls, wishes: list[str]) -> _Wish:
        lowered = [wish.partition("/") for wish in wishes]
        return cls(
            everything=any(name == "*" and not slash for name, slash, _ in lowered),
            classes=frozenset(name.lower() for name, slash, _ in lowered if not slash),
            objects=frozenset((name.lower(), ref) for name, slash, ref in lowered if slash),
        )

    def covers_class(self, name: str) -> bool:
        return self.everything or name in self.classes or any(cls == name for cls, _ in self.objects)

    def covers(self, name: str, ref: str) -> bool:
        return self.everything or name in self.classes or (name, ref) in self.objects

    @property
    def is_tasks_only(self) -> bool:
        return not self.everything and (self.classes | {cls for cls, _ in self.objects}) == {"task"}


class Events:
    """The event interface of one pool."""

    def __init__(self, db: Database, clock: Clock, sessions: Sessions, record_of: RecordOf) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions
        self._record_of = record_of

    def inject(self, cls: str, ref: str) -> str:
        """Mark an object as modified although it is not; return a token after which exactly that is new."""
        with self._db.transaction():
            token = _spell_token(self._db.generation, self._last_message())
            self._db.touch(cls, ref)
            return token

    def wait(self, session: str, wishes: list[str], token: str, timeout_s: float) -> dict[str, object]:
        """Return what changed since ``token``, waiting up to ``timeout_s`` for something.

        The new token covers what was told, no more: used with other classes it brings what happened to them before.
        Raises ``SESSION_INVALID`` when the session ends meanwhile.
        """
        since, messages_since = _parse_token(token)
        wish = _Wish.parse(wishes)
        deadline_s = self._clock.monotonic_s() + timeout_s
        with self._db.lock:
            while not (found := self._collect(wish, since, messages_since)):
                left_s = deadline_s - self._clock.monotonic_s()
                if left_s <= 0:
                    break
                self._db.changed.wait(min(left_s, 1.0))
                self._sessions.check(session)
            if found and not wish.is_tasks_only and token:
                self._settle(min(BATCH_S, max(0.0, deadline_s - self._clock.monotonic_s())))
                found = self._collect(wish, since, messages_since)
            counts = {name.lower(): self._db.count(name) for name in self._db.datamodel.classes}
            counts["diagnostics"] = 0
            last = max([since, *(generation for name, generation in _generations(found) if name != "message")])
            last_message = max([messages_since, *(g for name, g in _generations(found) if name == "message")])
            return {"events": found, "valid_ref_counts": counts, "token": _spell_token(last, last_message)}

    def _settle(self, duration_s: float) -> None:
        end_s = self._clock.monotonic_s() + duration_s
        while (left_s := end_s - self._clock.monotonic_s()) > 0:
            self._db.changed.wait(left_s)

    def _collect(self, wish: _Wish, since: int, messages_since: int) -> list[dict[str, object]]:
        added: list[dict[str, object]] = []
        changed: list[dict[str, object]] = []
        for cls in sorted(self._db.datamodel.classes, key="message".__ne__):
            name = cls.lower()
            if cls in SILENT or not wish.covers_class(name):
                continue
            start = messages_since if cls == "message" else since
            if self._db.latest(cls) <= start:
                continue
            for row in self._db.rows(cls):
                if row.modified > start and wish.covers(name, row.ref):
                    is_new = row.created > start
                    event = _event(row.modified, name, "add" if is_new else "mod", row.ref)
                    event["snapshot"] = self._record_of(cls, row)
                    (added if is_new else changed).append(event)
        return [*added, *changed, *self._gone(wish, since, messages_since)]

    def _gone(self, wish: _Wish, since: int, messages_since: int) -> list[dict[str, object]]:
        """Return the deletions of what the client knows, latest first."""
        oldest = min(since, messages_since) if wish.covers_class("message") else since
        found: list[dict[str, object]] = []
        for deletion in reversed(self._db.deletions):
            if deletion.deleted <= oldest:
                break
            start = messages_since if deletion.cls == "message" else since
            name = deletion.cls.lower()
            if deletion.deleted > start >= deletion.created and wish.covers(name, deletion.ref):
                found.append(_event(deletion.deleted, name, "del", deletion.ref))
        return found

    def _last_message(self) -> int:
        return max((row.created for row in self._db.rows("message")), default=0)


def _generations(events: list[dict[str, object]]) -> list[tuple[str, int]]:
    return [(str(event["class"]), int(str(event["id"]))) for event in events]


def _event(generation: int, name: str, operation: str, ref: str) -> dict[str, object]:
    return {"id": str(generation), "timestamp": "0.0", "class": name, "operation": operation, "ref": ref}


def _spell_token(generation: int, message_generation: int) -> str:
    return f"{max(0, generation):020d},{max(0, message_generation):020d}"


def _parse_token(token: str) -> tuple[int, int]:
    if token == "":
        return 0, 0
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise ApiFailure("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
    return int(match[1]), int(match[2])
