"""Logs are events with stable names and fields: ``log.info("disk.sent", disk=d, length_bytes=n)``.

They go to standard error, always: standard output belongs to a command's result. Importing this module is enough to
make that true; a face raises the level or asks for JSON through ``configure_log``.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import FilteringBoundLogger

__all__ = ["configure_log", "get_log"]


def get_log(name: str) -> FilteringBoundLogger:
    """Return the logger of one module; ``name`` is the module's dotted name."""
    logger: FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


def _for_people() -> structlog.dev.ConsoleRenderer:
    # Plain tracebacks: the pretty ones print local variables, and one of them may hold what must not be shown.
    return structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)


def configure_log(*, verbosity: int = 0, as_json: bool = False) -> None:
    """Send events to standard error: warnings by default, info at verbosity 1, debug at 2."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    renderer = structlog.processors.JSONRenderer() if as_json else _for_people()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Looked up at every event: a face may replace standard error (a progress display does) after this call.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


configure_log()
