"""What can be wrong with an XVA, one class per cause; every refusal names the offset."""

from __future__ import annotations

from holdfast.core import ExitStatus, HoldfastError, Retry

__all__ = ["XvaDamaged", "XvaError", "XvaTruncated"]


class XvaError(HoldfastError):
    """Any reason why an XVA cannot be read."""

    code = "xva.error"
    exit_status = ExitStatus.DAMAGED
    effect = "Nothing of this archive was taken over; what exists already is untouched."

    def __init__(self, offset_bytes: int, text: str) -> None:
        super().__init__(text)
        self.offset_bytes = offset_bytes


class XvaTruncated(XvaError):
    """An XVA ends before it is complete."""

    code = "xva.truncated"
    retry = Retry.LATER
    advice = "The transfer was cut. Run it again; if it is cut again, look at the host's log for the export task."

    def __init__(self, offset_bytes: int, *, expected: str) -> None:
        super().__init__(offset_bytes, f"the XVA ends at byte {offset_bytes}, where {expected} was expected")
        self.expected = expected


class XvaDamaged(XvaError):
    """An XVA contradicts itself or its format."""

    code = "xva.damaged"
    advice = "Take the archive from its source again; this copy cannot be trusted."

    def __init__(self, offset_bytes: int, why: str, *, is_number: bool = False) -> None:
        super().__init__(offset_bytes, f"the XVA is damaged at byte {offset_bytes}: {why}")
        self.why = why
        self.is_number = is_number
        """Whether a number in a header cannot be read, rather than says something wrong."""
