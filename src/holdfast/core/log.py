"""Logs are events with stable names and fields: ``log.info("disk.sent", disk=d, length_bytes=n)``.

They go to standard error, always: standard output belongs to a command's result. A face raises the level or asks for
JSON through ``configure_log``. The library behind it takes 0.15 s to load, so it is loaded with the first event, which
most commands never have. Invariant: an event that cannot be written, on a full disk for instance, is lost, and whoever
told it goes on: no log decides what a program does.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import structlog
    from structlog.typing import FilteringBoundLogger

__all__ = ["configure_log", "get_log"]

_chosen = {"verbosity": 0, "as_json": 0}


class _LogOnDemand:
    """Stands for a module's logger until somebody logs."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        import structlog

        if not structlog.is_configured():
            _apply()
        return getattr(structlog.get_logger(module=self._name), attribute)


def get_log(name: str) -> FilteringBoundLogger:
    """Return the logger of one module; ``name`` is the module's dotted name."""
    return cast("FilteringBoundLogger", _LogOnDemand(name))


def configure_log(*, verbosity: int = 0, as_json: bool = False) -> None:
    """Send events to standard error: warnings by default, info at verbosity 1, debug at 2."""
    _chosen.update(verbosity=verbosity, as_json=as_json)
    if "structlog" in sys.modules:
        _apply()


def _apply() -> None:
    import structlog

    level = {0: logging.WARNING, 1: logging.INFO}.get(_chosen["verbosity"], logging.DEBUG)
    renderer = structlog.processors.JSONRenderer() if _chosen["as_json"] else _for_people()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at every event: a face may replace standard error (a progress display does) after this call.
        logger_factory=lambda *_: _Writer(structlog.PrintLogger(sys.stderr)),
        cache_logger_on_first_use=False,
    )


class _Writer:
    """Writes events of any level where it can."""

    def __init__(self, printer: structlog.PrintLogger) -> None:
        self._printer = printer

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # no room, nobody who reads, or closed at the very end
            self._printer.msg(message)

    debug = info = warning = error = critical = exception = msg


def _for_people() -> structlog.dev.ConsoleRenderer:
    import structlog

    # Plain tracebacks: the pretty ones print local variables, and one of them may hold what must not be shown.
    return structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
