"""What the keeper remembers: until when each object is held, and its own time. In a folder that only root can reach.

One small file for each group of objects, replaced atomically. Invariant: an object is written down as held before it is
flagged, and as let go only after its flag is gone; so a crash leaves nothing flagged that is forgotten.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path

from holdfast.core import ExitStatus, HoldfastError
from holdfast.keeper.exchange import HELD_FOLDER, HeldFile, format_held, parse_held

__all__ = ["KeeperBusy", "KeeperState", "KeeperStateDamaged", "replace_file"]

_TIME_FILE = "time"
_FOLDER_FILE = "folder"


class KeeperBusy(HoldfastError):
    """Another keeper works on the same folder."""

    code = "keeper.busy"
    exit_status = ExitStatus.BUSY
    effect = "Nothing was changed; the other keeper goes on."
    advice = "Let one keeper run for each folder; see 'systemctl status holdfast-keeper'."

    def __init__(self, *, folder: str) -> None:
        super().__init__(f"another keeper holds {folder} already")
        self.folder = folder


class KeeperStateDamaged(HoldfastError):
    """What the keeper remembered cannot be read."""

    code = "keeper.state-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "Every object that is held stays held; nothing new is held until this is solved."

    def __init__(self, *, path: str, reason: str) -> None:
        super().__init__(f"{path} is not what the keeper wrote: {reason}")
        self.path, self.reason = path, reason

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Delete {self.path}: the keeper then holds those objects for the whole time from now on."


class KeeperState:
    """The memory of the keeper of one folder. Not thread-safe; one process at a time."""

    def __init__(self, place: Path, *, folder: Path) -> None:
        """Open or make it below ``place``. ``KeeperBusy``; ``OSError``."""
        self._path = place / hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
        self._held = self._path / HELD_FOLDER
        for each in (place, self._path, self._held):
            with contextlib.suppress(FileExistsError):
                each.mkdir(mode=0o700)
        self._lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise KeeperBusy(folder=str(folder)) from None
        self._write(_FOLDER_FILE, os.fsencode(folder) + b"\n")

    def close(self) -> None:
        """Let another keeper work."""
        os.close(self._lock)

    def read_time(self) -> float | None:
        """Return where the keeper's own time stood; None for the first keeper. ``KeeperStateDamaged``."""
        path = self._path / _TIME_FILE
        try:
            return float(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as cause:
            raise KeeperStateDamaged(path=str(path), reason=str(cause)) from cause

    def write_time(self, now_s: float) -> None:
        """Remember where the keeper's own time stands."""
        self._write(_TIME_FILE, f"{now_s:.0f}\n".encode())

    def names(self) -> set[str]:
        """Return the groups of objects that something is known of."""
        return {each.name for each in self._held.iterdir() if not each.name.startswith(".")}

    def read(self, name: str) -> dict[str, HeldFile]:
        """Return what is known of a group. ``KeeperStateDamaged``."""
        path = self._held / name
        try:
            return parse_held(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as cause:
            raise KeeperStateDamaged(path=str(path), reason=str(cause)) from cause

    def write(self, name: str, held: dict[str, HeldFile]) -> None:
        """Remember a group; durable when it returns."""
        self._write(f"{HELD_FOLDER}/{name}", format_held(held))

    def _write(self, name: str, content: bytes) -> None:
        path = self._path / name
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            replace_file(folder, path.name, content, mode=0o600)
        finally:
            os.close(folder)


def replace_file(folder: int, name: str, content: bytes, *, mode: int) -> None:
    """Put a file into an open folder, or replace it, atomically and durably. The folder is the keeper's own."""
    temporary = f".new-{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, mode, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(content)
        stream.flush()
        os.fsync(descriptor)
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
