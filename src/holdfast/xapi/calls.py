"""Calls as the rest of the package makes them: with the session, the retry rules and the cancellation already in.

Invariant: what changes the pool is sent once, unless the pool itself said that it did not do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from holdfast.core import Cancellation, Clock, Entropy, HoldfastError, limits
from holdfast.model import JsonObject, JsonValue
from holdfast.xapi.catalogue import ObjectGone
from holdfast.xapi.records import NULL_REF, as_object, as_text
from holdfast.xapi.retry import CALL_RULES, READ_RULES, Patience, Retrier, RetryRule
from holdfast.xapi.session import PoolSession

__all__ = ["Calls"]

_T = TypeVar("_T")


class Calls:
    """One login as seen by one run: calls, references and records. Thread-safe."""

    def __init__(
        self,
        session: PoolSession,
        *,
        clock: Clock,
        entropy: Entropy,
        cancel: Cancellation,
        patience: Patience = Patience.BRIEF,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.session, self.clock, self.entropy, self.cancel = session, clock, entropy, cancel
        self._patience, self._tell = patience, tell
        self._retrier = Retrier(clock=clock, entropy=entropy, cancel=cancel, patience=patience, tell=tell)

    def with_cancel(self, cancel: Cancellation) -> Calls:
        """Return the same login, as patient, listening to another cancellation."""
        return Calls(
            self.session,
            clock=self.clock,
            entropy=self.entropy,
            cancel=cancel,
            patience=self._patience,
            tell=self._tell,
        )

    def login(self) -> None:
        """Log in, and wait for a pool that is away as long as patience lasts. Errors as ``PoolSession.login``."""
        self.patiently(lambda: self.session.login(cancel=self.cancel), rules=CALL_RULES)

    def patiently(
        self,
        action: Callable[[], _T],
        *,
        rules: Sequence[RetryRule],
        before_wait: Callable[[HoldfastError], None] = lambda _: None,
    ) -> _T:
        """Return what ``action`` returns, repeated as the rules say."""
        return self._retrier.run(action, rules=rules, before_wait=before_wait)

    def call(self, method: str, *params: object, timeout_s: float = limits.POOL_CALL_TIMEOUT_S) -> JsonValue:
        """Return the value of one call. Calls that only read are repeated when the connection breaks."""
        return self.patiently(
            lambda: self.call_once(method, *params, timeout_s=timeout_s),
            rules=READ_RULES if _only_reads(method) else CALL_RULES,
        )

    def call_once(self, method: str, *params: object, timeout_s: float = limits.POOL_CALL_TIMEOUT_S) -> JsonValue:
        """Return the value of one call that is not repeated here, because the caller repeats more than the call."""
        return self.session.call(method, *params, cancel=self.cancel, timeout_s=timeout_s)

    def ref(self, kind: str, uuid: str) -> str:
        """Return the reference of an object; ``ObjectGone`` when there is none with that uuid."""
        return as_text(self.call(f"{kind}.get_by_uuid", uuid), what=f"{kind}.get_by_uuid")

    def try_ref(self, kind: str, uuid: str) -> str | None:
        """Return the reference of an object, or None when it is gone."""
        try:
            return self.ref(kind, uuid)
        except ObjectGone:
            return None

    def record(self, kind: str, ref: str) -> JsonObject:
        """Return an object's whole record; ``ObjectGone`` when it is gone."""
        return as_object(self.call(f"{kind}.get_record", ref), what=f"{kind}.get_record")

    def try_record(self, kind: str, ref: str) -> JsonObject | None:
        """Return an object's whole record, or None when it is gone or the reference is null."""
        if ref == NULL_REF:
            return None
        try:
            return self.record(kind, ref)
        except ObjectGone:
            return None

    def uuid(self, kind: str, ref: str) -> str:
        """Return the uuid of an object."""
        return as_text(self.call(f"{kind}.get_uuid", ref), what=f"{kind}.get_uuid")

    def table(self, kind: str) -> dict[str, JsonObject]:
        """Return all records of a class by reference."""
        answer = as_object(self.call(f"{kind}.get_all_records"), what=f"{kind}.get_all_records")
        return {ref: as_object(record, what=kind) for ref, record in answer.items()}


def _only_reads(method: str) -> bool:
    # event.inject marks a row as touched, which is harmless to repeat.
    return method.partition(".")[2].startswith("get_") or method in ("event.from", "event.inject")
