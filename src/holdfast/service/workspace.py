"""What every use case works with, wired once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from holdfast.core import Cancellation, Clock, Entropy
from holdfast.runs import Runs
from holdfast.service.config import Registry, RepositoryPlace, Vault
from holdfast.storage import CountedRequests, ObjectStore

__all__ = ["Workspace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """One installation of Holdfast: its clock, configuration, secrets, runs and the way to stores."""

    clock: Clock
    entropy: Entropy
    registry: Registry
    vault: Vault
    open_store: Callable[[RepositoryPlace, bool, Cancellation], ObjectStore]
    """Place, whether to make it, and what its retries listen to; returns the store with its retry wrapper."""
    cached: Callable[[RepositoryPlace, ObjectStore], ObjectStore]
    """Returns a place's store with this machine's memory of it before it, where the place is slow enough for one."""
    open_runs: Callable[[], AbstractContextManager[Runs]]
    """Opens the runs of this installation, flows not registered."""
    counted_requests: Callable[[RepositoryPlace], CountedRequests]
    """What this installation has asked of a place in the last thirty days, where the place charges for it."""
    machine_name: str
    """How this machine is called among a repository's key holders."""
