"""What the simulated pool answers when it refuses: an error code with parameters, as the real API spells it.

These are protocol values, not errors of Holdfast: a client turns them into its own.
"""

from __future__ import annotations

__all__ = ["ApiFailure", "internal_failure", "quoted"]


class ApiFailure(Exception):
    """A refusal: ``code`` and ``params`` are exactly what the client reads in ``ErrorDescription``."""

    def __init__(self, code: str, *params: str) -> None:
        super().__init__(f"{code}: [ {'; '.join(params)} ]")
        self.code = code
        self.params = params

    @property
    def description(self) -> list[str]:
        """The list that goes over the wire: the code first."""
        return [self.code, *self.params]


def quoted(text: str) -> str:
    """Return ``text`` as an OCaml string literal, which is how exception texts carry strings: bytes, not characters."""
    return '"' + "".join(map(_spelled, text.encode("utf-8", "surrogateescape"))) + '"'


_SPELLED = dict(zip(b'"\\\n\t\r\b', ('\\"', "\\\\", "\\n", "\\t", "\\r", "\\b"), strict=True))


def _spelled(byte: int) -> str:
    return _SPELLED.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03d}")


def internal_failure(text: str) -> ApiFailure:
    """Return the refusal that a failed conversion inside the pool becomes."""
    return ApiFailure("INTERNAL_ERROR", f"Failure({quoted(text)})")
