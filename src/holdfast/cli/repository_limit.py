"""``holdfast repository limit``: how much of a line backups and restores take."""

from __future__ import annotations

from dataclasses import replace

from holdfast import service
from holdfast.cli.amounts import parse_rate
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, format_rate

__all__ = ["limit"]

_NO_COMMON = Common()


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


def _told(bytes_per_s_max: int | None) -> str:
    return "no limit" if bytes_per_s_max is None else f"at most {format_rate(bytes_per_s_max)}"
