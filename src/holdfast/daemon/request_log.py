"""What was asked of stores that charge for it, kept for a month: one line for each store that a command used.

Invariant: counting never fails a command and never holds one up; what a killed process asked is missing, nothing is
counted twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from blake3 import blake3

from holdfast.core import Clock, format_time, get_log, parse_time
from holdfast.storage import CountedRequests, Meter, MeteredStore, ObjectStore, Verb

__all__ = ["CountedStore", "RequestLog"]

_log = get_log(__name__)

_KEPT = timedelta(days=30)
_FILE_BYTES_MAX = 1 << 20
"""Some eight thousand commands; then what is older than a month goes."""


class RequestLog:
    """The counts of all places, one file for each."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def count(self, location: str, meters: Mapping[Verb, Meter]) -> None:
        """Add what was asked of a place; nothing is written when nothing was asked."""
        if not any(each.requests for each in meters.values()):
            return
        told = {verb.value: [each.requests, each.length_bytes] for verb, each in meters.items() if each.requests}
        line = json.dumps({"at": format_time(self._clock.now()), **told}, separators=(",", ":")) + "\n"
        path = self._path(location)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One write at the end of the file: lines of several processes never mix.
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line.encode())
                is_full = os.fstat(descriptor).st_size > _FILE_BYTES_MAX
            finally:
                os.close(descriptor)
            if is_full:
                self._shorten(path)
        except OSError as cause:
            _log.info("store.count-refused", path=str(path), reason=cause.strerror or str(cause))

    def counted(self, location: str) -> CountedRequests:
        """Return what was asked of a place in the last thirty days, or since counting began."""
        totals: dict[str, tuple[int, int]] = {}
        first = now = self._clock.now()
        for at, told in self._lines(self._path(location)):
            if now - at > _KEPT:
                continue
            first = min(first, at)
            for verb, (requests, length_bytes) in told.items():
                before = totals.get(verb, (0, 0))
                totals[verb] = (before[0] + requests, before[1] + length_bytes)
        return CountedRequests(
            days=max((now - first) / timedelta(days=1), 0.01) if totals else 0.0,
            puts=_sum(totals, Verb.PUT),
            gets=_sum(totals, Verb.GET, Verb.SIZE, Verb.LOCK),
            lists=_sum(totals, Verb.LIST),
            put_bytes=totals.get(Verb.PUT.value, (0, 0))[1],
            get_bytes=totals.get(Verb.GET.value, (0, 0))[1],
        )

    def _path(self, location: str) -> Path:
        digest: str = blake3(location.encode()).hexdigest()
        return self._folder / f"{digest[:32]}.jsonl"

    def _lines(self, path: Path) -> list[tuple[datetime, dict[str, tuple[int, int]]]]:
        found = []
        with contextlib.suppress(OSError):
            for line in path.read_text(errors="replace").splitlines():
                # A line that a full disk cut off is passed over.
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                    told = json.loads(line)
                    at = parse_time(told.pop("at"))
                    found.append((at, {verb: (int(pair[0]), int(pair[1])) for verb, pair in told.items()}))
        return found

    def _shorten(self, path: Path) -> None:
        """Keep the last month, and of a busier one the newer half."""
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        oldest = format_time(self._clock.now() - _KEPT)
        recent = [line for line in lines if line[len('{"at":"') :][: len(oldest)] >= oldest]
        kept = recent if len(recent) < len(lines) * 3 // 4 else lines[len(lines) // 2 :]
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text("".join(kept))
        temporary.replace(path)


class CountedStore(MeteredStore):
    """A store whose requests are added to a log when nobody uses it any more, at the latest when the process ends."""

    def __init__(self, inner: ObjectStore, log: RequestLog, *, location: str) -> None:
        super().__init__(inner)
        weakref.finalize(self, log.count, location, self._meters)


def _sum(totals: Mapping[str, tuple[int, int]], *verbs: Verb) -> int:
    return sum(totals.get(verb.value, (0, 0))[0] for verb in verbs)
