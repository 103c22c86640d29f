"""Where secrets come from: a file, the environment, or a person at a terminal; never an argument of the command."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from holdfast.cli.asking import asking
from holdfast.core import ExitStatus, HoldfastError, Secret

__all__ = ["PASSPHRASE_VARIABLE", "PASSWORD_VARIABLE", "SecretNotGiven", "read_new_secret", "read_secret"]

PASSWORD_VARIABLE = "HOLDFAST_POOL_PASSWORD"
PASSPHRASE_VARIABLE = "HOLDFAST_PASSPHRASE"


class SecretNotGiven(HoldfastError):
    """A secret is needed and nobody is there to type it."""

    code = "cli.secret-not-given"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."

    def __init__(self, *, what: str, variable: str, option: str, why: str) -> None:
        super().__init__(f"no {what}: {why}")
        self.what, self.variable, self.option = what, variable, option

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        option = f"{self.option}FILE" if self.option.endswith("=") else f"{self.option} FILE"
        return f"Give it with {option}, in the environment as {self.variable}, or run on a terminal."


def read_secret(*, what: str, variable: str, option: str, file: Path | None) -> Secret:
    """Return the secret from the file, else the environment, else by prompt. ``SecretNotGiven`` otherwise."""
    found = find_secret(what=what, variable=variable, option=option, file=file)
    if found is not None:
        return found
    if not sys.stdin.isatty():
        raise SecretNotGiven(what=what, variable=variable, option=option, why="there is no terminal to ask on")
    with asking():
        typed = getpass.getpass(f"{what[0].upper()}{what[1:]}: ")
    if not typed:
        raise SecretNotGiven(what=what, variable=variable, option=option, why="it is empty")
    return Secret(typed)


def read_new_secret(*, what: str, variable: str, option: str, file: Path | None) -> Secret:
    """Return a secret that is being chosen: as ``read_secret``, but a person types it twice."""
    found = find_secret(what=what, variable=variable, option=option, file=file)
    if found is not None:
        return found
    first = read_secret(what=what, variable=variable, option=option, file=None)
    with asking():
        again = Secret(getpass.getpass("Once more: "))
    if again != first:
        raise SecretNotGiven(what=what, variable=variable, option=option, why="the two are not the same")
    return first


def find_secret(*, what: str, variable: str, option: str, file: Path | None) -> Secret | None:
    """Return the secret from the file, else the environment; None when neither is given. Nobody is asked.

    ``SecretNotGiven`` for a file that cannot be read or is empty.
    """
    if file is not None:
        try:
            text = file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as cause:
            raise SecretNotGiven(what=what, variable=variable, option=option, why=str(cause)) from cause
        if not text:
            raise SecretNotGiven(what=what, variable=variable, option=option, why=f"{file} is empty")
        return Secret(text)
    text = os.environ.get(variable, "")
    return Secret(text) if text else None
