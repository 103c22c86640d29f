"""The root of every error: what happened, what it means for the data, what to do.

Each cause is one class beside the code that raises it. The class carries a stable ``code`` (listed in
``docs/errors.md``), whether a retry can help, and the exit status that the command line returns for it.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator

__all__ = ["ExitStatus", "HoldfastError", "Retry", "iter_error_classes", "mapped"]


class Retry(enum.Enum):
    """Whether trying the same thing again can help."""

    NEVER = "never"
    NOW = "now"
    LATER = "later"


class ExitStatus(enum.IntEnum):
    """What the process tells its caller; stable, documented in ``docs/errors.md``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_FOUND = 5
    DAMAGED = 6
    NO_SPACE = 7
    PARTIAL = 8
    BUSY = 9
    INTERRUPTED = 130


class HoldfastError(Exception):
    """Any failure that Holdfast understands.

    A subclass sets ``code``; it may set ``retry``, ``exit_status`` and ``effect`` (one sentence: what this means for
    the data), and overrides ``next_step`` when the advice depends on the facts it carries.
    """

    code: str = "holdfast.error"
    retry: Retry = Retry.NEVER
    exit_status: ExitStatus = ExitStatus.FAILED
    effect: str = "No restore point was changed."
    advice: str = "Look at the cause above; run the command again when it is removed."

    def next_step(self) -> str:
        """Return one sentence on what the reader should do now."""
        return self.advice

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """Return the error's own fields, for ``--json`` and logs. Plain values only."""
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and isinstance(value, str | int | float | bool | None)
        }


def iter_error_classes(*, root: type[HoldfastError] = HoldfastError) -> Iterator[type[HoldfastError]]:
    """Yield every subclass of ``root`` that has been imported, depth first, each once."""
    seen: set[type[HoldfastError]] = set()
    stack = [root]
    while stack:
        for cls in stack.pop().__subclasses__():
            if cls not in seen:
                seen.add(cls)
                stack.append(cls)
                yield cls


@contextlib.contextmanager
def mapped(*kinds: type[BaseException], to: Callable[[BaseException], HoldfastError]) -> Iterator[None]:
    """Turn a library's errors into ours at a seam, chained; everything else passes unchanged."""
    try:
        yield
    except kinds as cause:
        if isinstance(cause, HoldfastError):
            raise
        raise to(cause) from cause
