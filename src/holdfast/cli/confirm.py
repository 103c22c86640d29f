"""Questions to a person: yes or no, and the name of what is going to be destroyed."""

from __future__ import annotations

import sys

from holdfast.cli.asking import asking
from holdfast.core import ExitStatus, HoldfastError

__all__ = ["NotConfirmed", "confirm", "confirm_destruction"]


class NotConfirmed(HoldfastError):
    """Something that cannot be undone was not confirmed."""

    code = "cli.not-confirmed"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Repeat the command and confirm, or add --yes where no terminal is."

    def __init__(self, what: str) -> None:
        super().__init__(f"not confirmed: {what[0].lower()}{what[1:]}")


def confirm(question: str) -> bool:
    """Ask on the terminal; everything but a clear yes is a no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    with asking():
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def confirm_destruction(what: str, *, name: str, yes: bool) -> None:
    """Return when ``yes`` was given or the person types ``name``; ``NotConfirmed`` otherwise."""
    if yes:
        return
    if sys.stdin.isatty():
        sys.stderr.write(f"{what}. This cannot be undone. Type {name} to go on: ")
        sys.stderr.flush()
        with asking():
            typed = sys.stdin.readline().strip()
        if typed == name:
            return
    raise NotConfirmed(what)
