"""``holdfast repository limit``: how much of a line backups and restores take."""

from __future__ import annotations

import re
from dataclasses import replace

from holdfast import service
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError, format_rate

__all__ = ["limit", "parse_rate"]

_NO_COMMON = Common()

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([kKMG]?)(i?)(B|bit)?(?:/s)?")
_FACTORS = {"": 0, "k": 1, "M": 2, "G": 3}
_OFF = "off"


class RateInvalid(HoldfastError):
    """A text is not a rate."""

    code = "cli.rate-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Write for example 20MB, 1.5MiB or 100Mbit (each per second), or 'off' for no limit."

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a rate")


def limit(name: str, *, up: str | None = None, down: str | None = None, common: Common = _NO_COMMON) -> int:
    """Show or change how much of the line to a repository this machine takes.

    A pack of 64 MiB travels at the line's speed, then nothing does until its time is paid for: the limit holds on the
    average, over all disks and VMs of one command together. What runs already keeps the limit that it started with.

    Example: holdfast repository limit offsite --up 20MB --down off

    Parameters
    ----------
    name
        The repository.
    up
        The most that is sent per second: 20MB, 1.5MiB, 100Mbit, or off.
    down
        The most that is fetched per second.
    """

    def body(session: Session) -> ExitStatus:
        limits = session.workspace.registry.repository(name).limits
        if up is not None:
            limits = replace(limits, up_bytes_per_s_max=parse_rate(up))
        if down is not None:
            limits = replace(limits, down_bytes_per_s_max=parse_rate(down))
        if up is not None or down is not None:
            service.limit_line(session.workspace, name, limits)
        out = session.out
        out.say(f"Up: {_told(limits.up_bytes_per_s_max)}. Down: {_told(limits.down_bytes_per_s_max)}.")
        out.result({"repository": name, "limits": limits})
        return ExitStatus.OK

    return run_command(common, body)


def parse_rate(text: str) -> int | None:
    """Return bytes per second, None for ``off``; ``RateInvalid`` when the text is no rate."""
    if text.strip().lower() == _OFF:
        return None
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise RateInvalid(text)
    number, prefix, binary, unit = match.groups()
    power = _FACTORS[prefix if prefix != "K" else "k"]
    bytes_per_s = float(number) * (1024 if binary else 1000) ** power / (8 if unit == "bit" else 1)
    if bytes_per_s < 1:
        raise RateInvalid(text)
    return int(bytes_per_s)


def _told(bytes_per_s_max: int | None) -> str:
    return "no limit" if bytes_per_s_max is None else f"at most {format_rate(bytes_per_s_max)}"
