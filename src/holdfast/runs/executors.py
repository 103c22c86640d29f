"""Who is alive: every process that carries out runs holds a lock on a file of its own for as long as it lives.

The kernel drops the lock with the process, however it ends, so a run is RUNNING exactly while the lock of its executor
is held. A file is removed only by one who holds its lock, and a lock counts only on the file that is still in place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from holdfast.core import Entropy

__all__ = ["Executor", "is_alive", "sweep_dead", "take_executor"]

_TAKE_ATTEMPTS_MAX = 8
"""A fresh random name is lost only to a probe in the same microsecond; eight in a row do not happen."""


class Executor:
    """This process's proof of life. A context manager: leaving the block ends it."""

    def __init__(self, *, executor_id: str, path: Path, descriptor: int) -> None:
        self.id = executor_id
        self._path = path
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Stop counting as alive. May be called twice."""
        if self._descriptor is None:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def take_executor(folder: Path, *, entropy: Entropy) -> Executor:
    """Return a new executor under a name nobody has; OSError when the folder cannot be written."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for _ in range(_TAKE_ATTEMPTS_MAX):
        executor_id = f"x-{entropy.token_bytes(8).hex()}"
        path = _lock_path(folder, executor_id)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _try_lock(descriptor) and _is_same_file(descriptor, path):
            os.write(descriptor, f"{os.getpid()}\n".encode())
            return Executor(executor_id=executor_id, path=path, descriptor=descriptor)
        os.close(descriptor)
    raise AssertionError("no executor name could be locked")


def is_alive(folder: Path, executor_id: str) -> bool:
    """Return whether the process that took ``executor_id`` still lives."""
    try:
        descriptor = os.open(_lock_path(folder, executor_id), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def sweep_dead(folder: Path) -> list[str]:
    """Remove the files of executors that have died and return their ids."""
    dead = []
    for path in sorted(folder.glob("x-*.lock")):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if _try_lock(descriptor) and _is_same_file(descriptor, path):
                    path.unlink()
                    dead.append(path.stem)
            finally:
                os.close(descriptor)
    return dead


def _lock_path(folder: Path, executor_id: str) -> Path:
    return folder / f"{executor_id}.lock"


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        placed = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (held.st_dev, held.st_ino) == (placed.st_dev, placed.st_ino)
