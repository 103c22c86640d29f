"""What time has surely passed since somebody stored something: by this machine's clock and by the store's own.

A collector that is hours ahead would take a living writer for dead. Where the store tells when objects were stored, it
has to agree; what lies between two objects there, no other clock has a say in.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from holdfast.core import get_log
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["Elapsed"]

_PLAUSIBLE_FROM = datetime(2026, 1, 1, tzinfo=UTC)
"""Before any repository. Some mounts say 1970 or 2000 of every file; such a store has no clock."""

_log = get_log(__name__)


class Elapsed:
    """Compares times with now. ``witness`` returns the name of an object that the caller has just stored."""

    def __init__(self, vault: Vault, *, witness: Callable[[], str]) -> None:
        self.now = vault.clock.now()
        """By this machine's clock."""
        self._vault = vault
        self._witness = witness
        self._stored_now: datetime | None = None

    def is_over(self, ends_at: datetime | None, *, key: str, lasts: timedelta, margin: timedelta) -> bool:
        """Return whether something ended longer than the margin ago: what the object ``key`` made known.

        It ends at ``ends_at`` by the clock of whoever stored the object, None when they tell no time. By the store's
        clock that is ``lasts`` after the object was stored; where the store has none, what tells no time is over.
        """
        if ends_at is not None and self.now - ends_at <= margin:
            return False
        age = self._age(key)
        if age is None or age > lasts + margin:
            return True
        _log.warning("clock.disagrees-with-store", key=key, now=self.now.isoformat(), stored_ago=str(age))
        return False

    def _age(self, key: str) -> timedelta | None:
        """Return how much later than this object the witness was stored; None when the store does not tell."""
        try:
            stored_at = self._stored_at(key)
            if stored_at is None:
                return None
            if self._stored_now is None:
                self._stored_now = self._stored_at(self._witness())
        except ObjectMissing:
            # Renewed or removed just now: somebody is alive.
            return timedelta()
        return None if self._stored_now is None else self._stored_now - stored_at

    def _stored_at(self, key: str) -> datetime | None:
        stored_at = self._vault.store.stored_at(key)
        return stored_at if stored_at is not None and stored_at >= _PLAUSIBLE_FROM else None
