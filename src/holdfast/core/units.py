"""Sizes and times: the constants every layer counts in, and how people are shown them.

Inside the program a size is an integer of bytes and a time is a float of seconds; only faces format them.
"""

__all__ = [
    "BLOCK_BYTES",
    "GIB",
    "KIB",
    "MIB",
    "SECTOR_BYTES",
    "TIB",
    "format_bytes",
    "format_duration",
    "format_rate",
]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

SECTOR_BYTES = 512
BLOCK_BYTES = 64 * KIB
"""The granule of everything: one bit of XAPI's changed block tracking, one block of a repository."""

_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(length_bytes: int) -> str:
    """Return a size for people: three significant digits and a binary unit, e.g. ``1.38 GiB``."""
    value = float(length_bytes)
    unit = _BINARY_UNITS[0]
    for unit in _BINARY_UNITS:
        if abs(value) < 1000 or unit == _BINARY_UNITS[-1]:
            break
        value /= 1024
    if unit == "B":
        return f"{length_bytes} B"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f} {unit}"


def format_rate(bytes_per_s: float) -> str:
    """Return a transfer rate for people, e.g. ``412 MiB/s``."""
    return f"{format_bytes(round(bytes_per_s))}/s"


def format_duration(duration_s: float) -> str:
    """Return a duration for people: ``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``3 h 02 min``."""
    if duration_s < 1:
        return f"{duration_s:.2f} s"
    if duration_s < 60:
        return f"{duration_s:.1f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
