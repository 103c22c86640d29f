"""The ground everything stands on: units, time, chance, errors, limits, cancellation, progress, log events."""

from holdfast.core import limits
from holdfast.core.attempts import repeat_patiently
from holdfast.core.cancel import Cancellation, Cancelled
from holdfast.core.clock import Clock, ManualClock, SystemClock, format_minute, format_time, parse_time
from holdfast.core.decoding import from_builtins, from_json, from_msgpack
from holdfast.core.entropy import Entropy, SeededEntropy, SystemEntropy
from holdfast.core.errors import ExitStatus, HoldfastError, Retry, iter_error_classes, mapped
from holdfast.core.log import configure_log, get_log
from holdfast.core.progress import NoProgress, Progress, ProgressTask
from holdfast.core.secret import Secret
from holdfast.core.units import (
    BLOCK_BYTES,
    GIB,
    KIB,
    MIB,
    SECTOR_BYTES,
    TIB,
    format_bytes,
    format_duration,
    format_rate,
)

__all__ = [
    "BLOCK_BYTES",
    "GIB",
    "KIB",
    "MIB",
    "SECTOR_BYTES",
    "TIB",
    "Cancellation",
    "Cancelled",
    "Clock",
    "Entropy",
    "ExitStatus",
    "HoldfastError",
    "ManualClock",
    "NoProgress",
    "Progress",
    "ProgressTask",
    "Retry",
    "Secret",
    "SeededEntropy",
    "SystemClock",
    "SystemEntropy",
    "configure_log",
    "format_bytes",
    "format_duration",
    "format_minute",
    "format_rate",
    "format_time",
    "from_builtins",
    "from_json",
    "from_msgpack",
    "get_log",
    "iter_error_classes",
    "limits",
    "mapped",
    "parse_time",
    "repeat_patiently",
]
