"""How much of a line this machine takes."""

from __future__ import annotations

from dataclasses import replace

from holdfast.service.config import LineLimits, RepositoryConfig
from holdfast.service.workspace import Workspace

__all__ = ["limit_line"]


def limit_line(workspace: Workspace, name: str, limits: LineLimits) -> RepositoryConfig:
    """Remember how much of the line to a repository this machine may take; what runs already keeps what it has."""
    changed = replace(workspace.registry.repository(name), limits=limits)
    workspace.registry.replace_repository(changed)
    return changed
