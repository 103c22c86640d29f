"""While a person is asked something, Ctrl-C means what it always means at a prompt: no, and out."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from holdfast.core import ExitStatus, HoldfastError

__all__ = ["NotAnswered", "asking"]


class NotAnswered(HoldfastError):
    """A question was left with Ctrl-C or the end of input."""

    code = "cli.not-answered"
    exit_status = ExitStatus.INTERRUPTED
    effect = "Nothing was changed."
    advice = "Run the command again when you know the answer."

    def __init__(self) -> None:
        super().__init__("the question was not answered")


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Let Ctrl-C end the question in the block; ``NotAnswered`` then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except (KeyboardInterrupt, EOFError):
        raise NotAnswered from None
    finally:
        signal.signal(signal.SIGINT, before)
