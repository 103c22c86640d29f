"""What can be wrong with a VHD, one class per cause; every refusal names the offset."""

from __future__ import annotations

from holdfast.core import ExitStatus, HoldfastError, Retry, format_bytes, limits

__all__ = [
    "VhdChainBroken",
    "VhdDamaged",
    "VhdDiskTooLarge",
    "VhdError",
    "VhdInterrupted",
    "VhdTruncated",
    "VhdUnsupported",
]


class VhdError(HoldfastError):
    """Any reason why a VHD cannot be read or written."""

    code = "vhd.error"
    effect = "Nothing of this disk was published; existing restore points are untouched."


class VhdTruncated(VhdError):
    """A VHD ends before it is complete."""

    code = "vhd.truncated"
    retry = Retry.LATER
    exit_status = ExitStatus.DAMAGED
    advice = "The transfer was cut. Run it again; if it is cut again, look at the host's log for the export task."

    def __init__(self, offset_bytes: int, *, expected: str) -> None:
        super().__init__(f"the VHD ends at byte {offset_bytes}, where {expected} was expected")
        self.offset_bytes, self.expected = offset_bytes, expected


class VhdDamaged(VhdError):
    """A VHD contradicts itself or its specification."""

    code = "vhd.damaged"
    exit_status = ExitStatus.DAMAGED
    advice = "Check the file or the storage that it came from; a disk on a pool can be read over NBD instead."

    def __init__(self, offset_bytes: int, what: str) -> None:
        super().__init__(f"the VHD is damaged at byte {offset_bytes}: {what}")
        self.offset_bytes, self.what = offset_bytes, what


class VhdUnsupported(VhdError):
    """A VHD is valid, but of a kind that is not read here."""

    code = "vhd.unsupported"
    exit_status = ExitStatus.REFUSED
    advice = "Convert it to a dynamic VHD with 2 MiB blocks, for example with qemu-img convert -O vpc."

    def __init__(self, offset_bytes: int, what: str) -> None:
        super().__init__(f"the VHD cannot be read here (byte {offset_bytes}): {what}")
        self.offset_bytes, self.what = offset_bytes, what


class VhdInterrupted(VhdError):
    """A pool gave up an export in the middle and wrote its error message into the disk's data."""

    code = "vhd.interrupted"
    retry = Retry.LATER
    exit_status = ExitStatus.DAMAGED
    advice = "The pool's message above says why. Its export task carries the error code; run again when it is cured."

    def __init__(self, offset_bytes: int, *, status: str, message: str) -> None:
        super().__init__(f"the pool stopped the export at byte {offset_bytes}: {status}: {message}")
        self.offset_bytes, self.status, self.message = offset_bytes, status, message


class VhdDiskTooLarge(VhdError):
    """A disk is larger than a VHD may be on a pool."""

    code = "vhd.disk-too-large"
    exit_status = ExitStatus.REFUSED
    advice = "Use a raw transfer, or NBD for reading; on the pool such a disk is kept as qcow2."

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            f"a disk of {size_bytes} bytes ({format_bytes(size_bytes)}) does not fit into a VHD, "
            f"which may hold {limits.VHD_DISK_BYTES_MAX} bytes"
        )
        self.size_bytes, self.size_bytes_max = size_bytes, limits.VHD_DISK_BYTES_MAX


class VhdChainBroken(VhdError):
    """The files given do not make a complete disk."""

    code = "vhd.chain-broken"
    exit_status = ExitStatus.DAMAGED
    advice = "Give the files from the newest difference down to the full one, each followed by its own parent."

    def __init__(self, what: str) -> None:
        super().__init__(f"the VHD files do not make a complete disk: {what}")
        self.what = what
