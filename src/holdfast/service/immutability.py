"""Locks of a repository: asked for, changed, and tried with a canary."""

from __future__ import annotations

import re

from holdfast.core import Cancellation, ExitStatus, HoldfastError, Progress, limits
from holdfast.repository import LockDaysInvalid, LockingReport, ProtectionReport
from holdfast.service.protection_view import protection_of
from holdfast.service.repositories import open_by_name
from holdfast.service.workspace import Workspace

__all__ = ["LockDaysUnclear", "lock_repository", "parse_lock_days", "show_protection"]


class LockDaysUnclear(HoldfastError):
    """A text that does not say for how many days."""

    code = "repository.lock-days-unclear"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Give a number of days, such as 30 or 30d."

    def __init__(self, *, text: str) -> None:
        super().__init__(f"{text!r} is not a number of days")
        self.text = text


def parse_lock_days(text: str) -> int:
    """Return the days that ``30`` or ``30d`` means. ``LockDaysUnclear``, ``LockDaysInvalid``."""
    found = re.fullmatch(r"([0-9]{1,6})d?", text.strip())
    if found is None:
        raise LockDaysUnclear(text=text)
    days = int(found[1])
    if days > limits.LOCK_DAYS_MAX:
        raise LockDaysInvalid(days=days)
    return days


def lock_repository(
    workspace: Workspace, name: str, *, days: int, progress: Progress, cancel: Cancellation
) -> LockingReport:
    """Hold all points for so many days, those that are there from now on; with 0, nothing new is locked any more."""
    opened = open_by_name(workspace, name, cancel=cancel)
    return opened.protection.set_days(days, progress=progress, cancel=cancel)


def show_protection(workspace: Workspace, name: str, *, cancel: Cancellation) -> ProtectionReport:
    """Return whether a repository is protected against deletion, after trying."""
    return protection_of(open_by_name(workspace, name, cancel=cancel), name)
