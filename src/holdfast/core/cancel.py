"""Cancellation: one token per run that every wait listens to.

A cancelled operation stops within seconds, cleans what it made, and leaves a resumable record. Blocking system calls
that no event can wake (a socket read) register a callback which makes them return.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from holdfast.core.errors import ExitStatus, HoldfastError

__all__ = ["Cancellation", "Cancelled"]


class Cancelled(HoldfastError):
    """The operation was asked to stop and has stopped."""

    code = "run.cancelled"
    exit_status = ExitStatus.INTERRUPTED
    effect = "Existing restore points are untouched; what was already stored is re-used when the run resumes."
    advice = "Resume it with 'holdfast run resume', or close it and clean up with 'holdfast run cancel'."


class Cancellation:
    """A one-way switch: once cancelled it stays so. Safe to use from any thread and from a signal handler's thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next_key = 0
        self.reason = ""

    @property
    def is_cancelled(self) -> bool:
        """Whether someone asked to stop."""
        return self._event.is_set()

    def cancel(self, *, reason: str = "stopped by request") -> None:
        """Ask everything that holds this token to stop. Safe to call twice; the first reason is kept."""
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Return when nobody asked to stop; raise ``Cancelled`` otherwise."""
        if self._event.is_set():
            raise Cancelled(self.reason)

    def wait(self, timeout_s: float) -> None:
        """Sleep for ``timeout_s``; raise ``Cancelled`` at once when asked to stop."""
        self._event.wait(timeout_s)
        self.check()

    @contextlib.contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Run ``callback`` when cancelled while the block is active; at once if already so (it must not block)."""
        with self._lock:
            key = self._next_key
            self._next_key += 1
            self._callbacks[key] = callback
            already = self._event.is_set()
        try:
            if already:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)
