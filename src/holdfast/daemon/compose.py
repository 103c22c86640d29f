"""Everything wired: the one place that knows which implementation stands behind which seam."""

from __future__ import annotations

import platform
import re
import threading
from pathlib import Path

from blake3 import blake3

from holdfast.core import Cancellation, Clock, Entropy, SystemClock, SystemEntropy, limits
from holdfast.daemon.credentials import read_credentials
from holdfast.daemon.registry import FileRegistry
from holdfast.daemon.request_log import CountedStore, RequestLog
from holdfast.daemon.settings import Settings
from holdfast.daemon.vault import FileVault
from holdfast.runs import open_runs
from holdfast.service import RepositoryPlace, Workspace
from holdfast.storage import (
    FOLDER,
    CachedStore,
    ObjectStore,
    RetryStore,
    StorePlace,
    Throttle,
    ThrottledStore,
    open_store,
    scheme_of,
)

__all__ = ["build_workspace"]

_HOST_NAME_MAX = 48
"""Leaves room for a number: a key holder's name has at most 63 characters."""


_CHARGING = frozenset({"s3", "azure"})
"""Schemes of services that charge by the request."""


_REMEMBERED = ("catalogue/", "points/")
"""Objects that lists and plans read. A point that is deleted and mirrored again comes back under its name: a list may
show the sizes of its first copy until the cache forgets it; what is restored or verified is never read from a cache."""


def build_workspace(settings: Settings, *, clock: Clock | None = None, entropy: Entropy | None = None) -> Workspace:
    """Return the workspace of one installation. Creates nothing on disk until something is stored."""
    used_clock, used_entropy = clock or SystemClock(), entropy or SystemEntropy()

    vault = FileVault(settings.secrets_folder)
    throttles = _Throttles(used_clock)
    request_log = RequestLog(settings.requests_folder, clock=used_clock)

    def open_with_retry(place: RepositoryPlace, create: bool, cancel: Cancellation) -> ObjectStore:
        credentials = read_credentials(place, vault=vault)
        where = StorePlace(location=place.location, options=place.options, credentials=credentials)
        store = open_store(where, create=create)
        if scheme_of(place.location) in _CHARGING:
            store = CountedStore(store, request_log, location=place.location)
        store = throttles.around(store, place, cancel=cancel)
        return RetryStore(store, clock=used_clock, entropy=used_entropy, cancel=cancel)

    return Workspace(
        clock=used_clock,
        entropy=used_entropy,
        registry=FileRegistry(settings.config_folder),
        vault=vault,
        open_store=open_with_retry,
        cached=lambda place, store: _cached(place, store, folder=settings.cache_folder),
        open_runs=lambda: open_runs(settings.runs_folder, clock=used_clock, entropy=used_entropy),
        counted_requests=lambda place: request_log.counted(place.location),
        machine_name=_machine_name(platform.node()),
    )


def _cached(place: RepositoryPlace, store: ObjectStore, *, folder: Path) -> ObjectStore:
    """Return the store with a memory of its small objects on the local disk; a local folder needs none."""
    if scheme_of(place.location) == FOLDER:
        return store
    digest: str = blake3(place.location.encode()).hexdigest()
    return CachedStore(
        store,
        folder=folder / digest[:32],
        prefixes=_REMEMBERED,
        bytes_max=limits.CACHE_BYTES_MAX,
        object_bytes_max=limits.CACHED_OBJECT_BYTES_MAX,
    )


class _Throttles:
    """The limits of lines, one budget for all stores at one place."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, int], Throttle] = {}

    def around(self, store: ObjectStore, place: RepositoryPlace, *, cancel: Cancellation) -> ObjectStore:
        """Return the store with the limits of its place, itself where there are none."""
        up = self._throttle(place.location, "up", place.limits.up_bytes_per_s_max)
        down = self._throttle(place.location, "down", place.limits.down_bytes_per_s_max)
        return store if up is None and down is None else ThrottledStore(store, up=up, down=down, cancel=cancel)

    def _throttle(self, location: str, direction: str, bytes_per_s_max: int | None) -> Throttle | None:
        if bytes_per_s_max is None:
            return None
        with self._lock:
            name = (location, direction, bytes_per_s_max)
            if name not in self._known:
                self._known[name] = Throttle(bytes_per_s_max=bytes_per_s_max, clock=self._clock)
            return self._known[name]


def _machine_name(host_name: str) -> str:
    """Return a key holder's name for this machine, made of characters that every store takes."""
    return "machine-" + (re.sub(r"[^a-z0-9-]+", "-", host_name.lower()).strip("-")[:_HOST_NAME_MAX] or "unnamed")
