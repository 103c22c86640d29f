"""The one place where a failed store operation is tried again.

Only errors that say a retry can help are retried, a bounded number of times, with growing pauses that a cancellation
ends at once. Invariant: whoever calls sees each operation happen once; a put whose first attempt arrived although it
seemed to fail succeeds, and is never mistaken for a clash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from holdfast.core import Cancellation, Clock, Entropy, HoldfastError, Retry, get_log, limits
from holdfast.model import Extent
from holdfast.storage.errors import ObjectExists
from holdfast.storage.store import ObjectInfo, ObjectStore, Parts, holds
from holdfast.storage.wrapper import StoreWrapper, Verb

__all__ = ["RetryStore"]

_log = get_log(__name__)

_PAUSE_S_FIRST = 4.0
"""Doubled each time: 4, 8, 16, 32, 64 s are the two minutes of ``RETRY_ATTEMPTS_MAX``."""

_JITTER_MIN = 0.5
"""Clients that failed together come back apart: each pause is shortened by up to half."""

_T = TypeVar("_T")


class RetryStore(StoreWrapper):
    """A store that waits out short outages. One per run: it listens to the run's cancellation."""

    def __init__(self, inner: ObjectStore, *, clock: Clock, entropy: Entropy, cancel: Cancellation) -> None:
        super().__init__(inner)
        self._clock = clock
        self._entropy = entropy
        self._cancel = cancel

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        may_have_arrived = False

        def attempt() -> None:
            nonlocal may_have_arrived
            try:
                self._inner.put(key, parts, locked_until=locked_until)
            except ObjectExists:
                if not (may_have_arrived and holds(self._inner, key, parts)):
                    raise
            except HoldfastError:
                may_have_arrived = True
                raise

        self._retried(Verb.PUT, key, attempt)

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        return self._retried(Verb.GET, key, lambda: self._inner.get(key))

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""

        def attempt() -> bytes:
            return self._inner.get_range(key, offset_bytes=offset_bytes, length_bytes=length_bytes)

        return self._retried(Verb.GET, key, attempt)

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return self._retried(Verb.SIZE, key, lambda: self._inner.size(key))

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``."""
        return self._retried(Verb.SIZE, key, lambda: self._inner.stored_at(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``. A listing that breaks goes on after the last key that was yielded."""
        last_key = ""
        failures = 0
        while True:
            self._cancel.check()
            try:
                for info in self._inner.list(prefix):
                    if info.key > last_key:
                        last_key, failures = info.key, 0
                        yield info
            except HoldfastError as failure:
                failures += 1
                self._wait_or_raise(Verb.LIST, prefix, failure, attempt=failures)
            else:
                return

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        self._retried(Verb.DELETE, key, lambda: self._inner.delete(key))

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        return self._retried(Verb.PUNCH, key, lambda: self._inner.try_punch(key, extents))

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``."""
        return self._retried(Verb.LOCK, key, lambda: self._inner.try_lock(key, until))

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        return self._retried(Verb.LOCK, key, lambda: self._inner.locked_until(key))

    def _retried(self, verb: Verb, key: str, action: Callable[[], _T]) -> _T:
        attempt = 0
        while True:
            self._cancel.check()
            try:
                return action()
            except HoldfastError as failure:
                attempt += 1
                self._wait_or_raise(verb, key, failure, attempt=attempt)

    def _wait_or_raise(self, verb: Verb, key: str, failure: HoldfastError, *, attempt: int) -> None:
        """Return when the next attempt is due; raise the failure when there is none."""
        if failure.retry is Retry.NEVER or attempt >= limits.RETRY_ATTEMPTS_MAX:
            raise failure
        pause_s = 0.0 if failure.retry is Retry.NOW and attempt == 1 else self._pause_s(attempt)
        _log.warning(
            "store.retry",
            store=self.describe(),
            verb=verb.value,
            key=key,
            error=failure.code,
            reason=str(failure),
            attempt=attempt,
            pause_s=round(pause_s, 1),
        )
        self._clock.sleep(pause_s, cancel=self._cancel)

    def _pause_s(self, attempt: int) -> float:
        longest_s: float = _PAUSE_S_FIRST * 2 ** (attempt - 1)
        return longest_s * self._entropy.uniform(_JITTER_MIN, 1.0)
