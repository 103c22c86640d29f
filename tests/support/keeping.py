"""A folder store with a keeper, without root: flags that are remembered instead of set."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

from holdfast.core import ManualClock
from holdfast.keeper import APPEND_ONLY, IMMUTABLE, Keeper, PassReport
from holdfast.storage import PosixStore

__all__ = ["DAY_S", "FakeFlags", "Kept"]

DAY_S = 24 * 3600


class FakeFlags:
    """Flags by file, for this process alone. ``works`` off: as a file system without them."""

    def __init__(self, *, works: bool = True, allowed: bool = True) -> None:
        self.works, self.allowed = works, allowed
        self._flags: dict[tuple[int, int], int] = {}
        self.changes = 0
        self.fail_at: int | None = None

    def read(self, descriptor: int) -> int | None:
        return self._flags.get(_file(descriptor), 0) if self.works else None

    def change(self, descriptor: int, *, on: int = 0, off: int = 0) -> None:
        if not self.works:
            raise OSError(errno.EOPNOTSUPP, "no flags")
        if not self.allowed:
            raise PermissionError(errno.EPERM, "not root")
        self.changes += 1
        if self.changes == self.fail_at:
            raise SystemExit("killed")
        file = _file(descriptor)
        self._flags[file] = (self._flags.get(file, 0) | on) & ~off

    def of(self, path: Path) -> int:
        facts = path.lstat()
        return self._flags.get((facts.st_dev, facts.st_ino), 0)


class Kept:
    """A folder with a store, its clock and its keepers."""

    def __init__(self, folder: Path, *, flags: FakeFlags | None = None) -> None:
        self.folder = folder / "store"
        self.state = folder / "state"
        self.flags = flags or FakeFlags()
        # Later than the file system's own clock, so that what was just written has settled.
        self.clock = ManualClock(datetime(2040, 1, 1, tzinfo=UTC))
        self.store = PosixStore(self.folder, create=True, flags=self.flags)
        self.store.put("holdfast.json", b"{}")

    def keeper(self, *, days: int = 30, days_max: int = 100) -> Keeper:
        return Keeper(self.folder, state=self.state, days=days, days_max=days_max, flags=self.flags, clock=self.clock)

    def look(self, *, days: int = 30, days_max: int = 100) -> PassReport:
        """Look once with a keeper that has just been started."""
        with self.keeper(days=days, days_max=days_max) as keeper:
            return keeper.look()

    def is_held(self, key: str) -> bool:
        return bool(self.flags.of(self.folder / key) & IMMUTABLE)

    def is_pinned(self, folder: str) -> bool:
        return bool(self.flags.of(self.folder / folder) & APPEND_ONLY)


def _file(descriptor: int) -> tuple[int, int]:
    facts = os.fstat(descriptor)
    return facts.st_dev, facts.st_ino
