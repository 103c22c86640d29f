"""A secret is a type that prints as ``***``; only ``reveal`` gives it back."""

from __future__ import annotations

import hmac
from typing import NoReturn

__all__ = ["Secret"]


class Secret:
    """A password, passphrase or key text that never shows itself in logs, errors or representations."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself, at the place where it is used."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(_comparable(self._text), _comparable(other._text))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        # A pickle ends up in a database, a queue or a crash report, in plain text.
        raise TypeError("a secret is never pickled; seal it, or pass where it can be read")


def _comparable(text: str) -> bytes:
    """Return bytes of any text, also of one that came from an environment that is not valid UTF-8."""
    return text.encode("utf-8", "surrogatepass")
