"""A lab's folder: opened by one process at a time, whole or refused, and let go again.

It holds the pool's objects (``pool.db``), the disks (``disks``) and the certificate. A pool that is being made is known
by a note in ``pool.db`` from before its first disk; one whose making was cut off is thrown away and made anew.
Invariant: a folder that holds a part of a finished pool is refused, never filled with a new one.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

from holdfast.core import Clock, Entropy, ExitStatus, HoldfastError, Secret, mapped
from holdfast.lab.certificate import Certificate, ensure_certificate
from holdfast.lab.database import Database
from holdfast.lab.datamodel import load_datamodel
from holdfast.lab.disks import DiskStore
from holdfast.lab.options import LabStateMismatch
from holdfast.lab.store import RowStore

__all__ = ["LabFolderDamaged", "LabFolderNotWritable", "LabState", "prepare_folder"]

_USER = "root"
_PASSWORD_BYTES = 12


class LabFolderNotWritable(HoldfastError):
    """The folder for the lab's state cannot be made, or nothing can be written there."""

    code = "lab.folder-not-writable"
    exit_status = ExitStatus.REFUSED
    effect = "No lab was started, and nothing was changed in the folder."
    advice = "Name a folder that this user may write to, or correct the permissions of this one."

    def __init__(self, *, folder: Path, why: str) -> None:
        super().__init__(f"the lab cannot keep its state in {folder}: {why}")
        self.folder, self.why = str(folder), why


class LabFolderDamaged(HoldfastError):
    """A part of the pool that the folder held is missing or cannot be read."""

    code = "lab.folder-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "No lab was started; what is left of the pool in the folder is as it was."
    advice = "Put the folder back as it was, or remove it and start a new lab."

    def __init__(self, *, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


def prepare_folder(folder: Path) -> None:
    """Make the folder for a lab's state, for its owner alone, and see that it can be written to.

    ``LabFolderNotWritable`` otherwise. Only a file that was made tells: permissions alone do not know of a read-only
    file system.
    """

    def refused(cause: BaseException) -> LabFolderNotWritable:
        return LabFolderNotWritable(folder=folder, why=getattr(cause, "strerror", None) or str(cause))

    with mapped(OSError, to=refused):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        tempfile.TemporaryFile(dir=folder).close()


class LabState:
    """What a folder holds, opened. Its lock goes with the disks; ``close`` lets go of everything."""

    def __init__(self, folder: Path, *, entropy: Entropy) -> None:
        """``LabFolderNotWritable``, ``LabFolderDamaged``, or what ``DiskStore`` refuses with."""
        prepare_folder(folder)
        self._folder = folder
        self._path = folder / "pool.db"
        self._entropy = entropy
        self.disks = DiskStore(folder / "disks", entropy=entropy)
        try:
            self._check_parts()
            self.store = self._open_store()
        except BaseException:
            self.disks.close()
            raise
        try:
            with mapped(sqlite3.DatabaseError, ValueError, KeyError, to=self._damaged):
                self.is_new = self._begin()
                self.db = Database(load_datamodel(), self.store, entropy)
        except BaseException:
            self.store.close()
            self.disks.close()
            raise

    def _damaged(self, cause: BaseException) -> HoldfastError:
        if isinstance(cause, sqlite3.OperationalError):  # no room, no rights: the file itself may be well
            return LabFolderNotWritable(folder=self._folder, why=str(cause))
        return LabFolderDamaged(path=self._path, reason=f"it cannot be read: {cause}")

    def _check_parts(self) -> None:
        has_objects = self._path.exists() and self._path.stat().st_size > 0
        if not self.disks.is_new and not has_objects:
            raise LabFolderDamaged(path=self._path, reason="it is missing or empty, and the pool's disks are there")

    def _open_store(self) -> RowStore:
        with mapped(sqlite3.DatabaseError, to=self._damaged):
            return RowStore(self._path)

    def _begin(self) -> bool:
        """Return whether a pool is to be made, after throwing away one that was not finished."""
        store = self.store
        if store.fact("scenario") is not None:
            if self.disks.is_new:
                raise LabFolderDamaged(path=self.disks.folder, reason="its list of disks is missing, the pool is there")
            return False
        if store.fact("begun") is None and not self.disks.is_new:
            raise LabFolderDamaged(path=self._path, reason="it holds no pool, and the pool's disks are there")
        if store.fact("begun") is not None:
            self.disks.clear()
            store.clear()
        store.set_fact("begun", "yes")
        return True

    def check_scenario(self, wanted: str) -> None:
        """Return when the finished pool is one of this scenario; ``LabStateMismatch`` otherwise."""
        held = self.store.fact("scenario")
        if held is not None and held != wanted:
            raise LabStateMismatch(what="the scenario", held=held, wanted=wanted)

    def finish(self, scenario: str) -> None:
        """Note that the pool is made: from now on the folder is continued."""
        self.store.set_fact("scenario", scenario)

    def user(self, chosen: str | None) -> str:
        """Return the user asked for, the one that the folder remembers, or root; the folder remembers it."""
        user = chosen or self.store.fact("user") or _USER
        self.store.set_fact("user", user)
        return user

    def password(self, chosen: Secret | None) -> Secret:
        """Return the password asked for, the one that the folder remembers, or a new one; the folder remembers it."""
        held = chosen.reveal() if chosen else self.store.fact("password")
        password = held or self._entropy.token_bytes(_PASSWORD_BYTES).hex()
        self.store.set_fact("password", password)
        return Secret(password)

    def keep_password(self, changed: str) -> None:
        """Remember the password that somebody gave the pool."""
        with self.db.lock:  # the store has one user at a time
            self.store.set_fact("password", changed)

    def certificate(self, *, name: str, addresses: Sequence[str], clock: Clock) -> Certificate:
        """Return the folder's certificate, made when there is none. ``LabCertificateDamaged`` when it is no good."""
        return ensure_certificate(self._folder, name=name, addresses=addresses, clock=clock)

    def close(self) -> None:
        """Let go of the folder. Safe to call twice."""
        self.db.close()
        self.disks.close()
