"""What can be wrong with a qcow2, one class per cause; every refusal names the offset."""

from __future__ import annotations

from holdfast.core import ExitStatus, HoldfastError, format_bytes
from holdfast.formats.qcow2 import layout

__all__ = ["Qcow2Damaged", "Qcow2Error", "Qcow2TooLarge", "Qcow2Truncated", "Qcow2Unsupported"]


class Qcow2Error(HoldfastError):
    """Any reason why a qcow2 cannot be read or written."""

    code = "qcow2.error"
    effect = "Nothing more of this disk was taken; what was already written stays as it is."


class Qcow2Truncated(Qcow2Error):
    """A qcow2 ends before something that it points to."""

    code = "qcow2.truncated"
    exit_status = ExitStatus.DAMAGED
    advice = "The file or the transfer was cut. Fetch it again from where it came from."

    def __init__(self, offset_bytes: int, *, expected: str) -> None:
        super().__init__(f"the qcow2 ends before byte {offset_bytes}, where {expected} was expected")
        self.offset_bytes, self.expected = offset_bytes, expected


class Qcow2Damaged(Qcow2Error):
    """A qcow2 contradicts itself or its specification."""

    code = "qcow2.damaged"
    exit_status = ExitStatus.DAMAGED
    advice = "Check the file with qemu-img check, or fetch it again from where it came from."

    def __init__(self, offset_bytes: int, what: str) -> None:
        super().__init__(f"the qcow2 is damaged at byte {offset_bytes}: {what}")
        self.offset_bytes, self.what = offset_bytes, what


class Qcow2Unsupported(Qcow2Error):
    """A qcow2 is valid, but uses something that is not read here."""

    code = "qcow2.unsupported"
    exit_status = ExitStatus.REFUSED
    advice = "Convert it to a plain qcow2 first, with qemu-img convert -O qcow2."

    def __init__(self, offset_bytes: int, what: str) -> None:
        super().__init__(f"the qcow2 cannot be read here (byte {offset_bytes}): {what}")
        self.offset_bytes, self.what = offset_bytes, what


class Qcow2TooLarge(Qcow2Error):
    """A disk is larger than a qcow2 of our clusters may be."""

    code = "qcow2.too-large"
    exit_status = ExitStatus.REFUSED
    advice = "Transfer the disk as a raw image instead."

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            f"a disk of {size_bytes} bytes ({format_bytes(size_bytes)}) does not fit into a qcow2, "
            f"which may hold {layout.DISK_BYTES_MAX} bytes"
        )
        self.size_bytes, self.size_bytes_max = size_bytes, layout.DISK_BYTES_MAX
