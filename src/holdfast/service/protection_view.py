"""Whether a repository is protected against deletion, as faces tell it: a trial that fails is never protection."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core import HoldfastError
from holdfast.repository import ProtectionReport, Repository

__all__ = ["protection_of"]


def protection_of(repository: Repository, name: str) -> ProtectionReport:
    """Return what trying has shown; what to do is told with the repository's ``name``."""
    try:
        report = repository.protection.prove()
    except HoldfastError as error:
        return repository.protection.not_tried(reason=str(error), next_step=error.next_step())
    return replace(report, next_step=report.next_step.replace("NAME", name))
