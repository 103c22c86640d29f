"""The store's folder as root walks it, although somebody hostile may own it.

Every name is opened below a descriptor that is open already, and no link is ever followed. Only plain files of the
folder's owner, with one name, on the same file system, whose names are those of objects, are ever touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.core import ExitStatus, HoldfastError
from holdfast.keeper.exchange import HELD_FOLDER, KEEPER_FOLDER, REQUESTS_FOLDER, held_name, is_kept
from holdfast.keeper.flags import APPEND_ONLY, IMMUTABLE, FileFlags
from holdfast.keeper.state import replace_file

__all__ = ["KeeperNotRoot", "KeeperRefused", "KeptTree", "NotTouched"]

_TEMPORARY = "tmp"
_FIXED = ("", "keys", "immutability", "epochs", "holders", "moved", "canary", "features/read", "features/write")
_HEX = frozenset("0123456789abcdef")
_PROBE = ".probe"


class KeeperNotRoot(HoldfastError):
    """The keeper may not change the flags of files."""

    code = "keeper.not-root"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing is held; whoever may write into the folder may delete everything in it."
    advice = "Run it as root on the file server itself, not through a mount, with the capability CAP_LINUX_IMMUTABLE."

    def __init__(self, *, folder: str) -> None:
        super().__init__(f"the flags of files in {folder} may not be changed")
        self.folder = folder


class KeeperRefused(HoldfastError):
    """The folder cannot be kept."""

    code = "keeper.refused"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing is held; whoever may write into the folder may delete everything in it."
    advice = "Give the folder of a repository on a local ext4, XFS or btrfs file system of this machine."

    def __init__(self, *, folder: str, reason: str) -> None:
        super().__init__(f"{folder} cannot be kept: {reason}")
        self.folder, self.reason = folder, reason


class NotTouched(Exception):
    """A file is not one that may be held: it has a second name, because its writer has not finished with it or somebody
    plays with it; or it belongs to somebody else than the folder does."""


class KeptTree:
    """The folder of a store. Not thread-safe. Errors of the file system come as ``OSError``."""

    def __init__(self, folder: Path, *, flags: FileFlags) -> None:
        """Open it. ``KeeperRefused``, ``KeeperNotRoot``."""
        self._path = folder
        self._flags = flags
        try:
            self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError) as cause:
            raise KeeperRefused(folder=str(folder), reason="there is no such folder") from cause
        facts = os.fstat(self._root)
        self._owner, self._device = facts.st_uid, facts.st_dev
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, self._root)
            self._check_store()
            self._own = self._make_own()
            opened.callback(os.close, self._own)
            self._probe()
            self.pin()
            self._opened_folders = opened.pop_all()

    def close(self) -> None:
        """Close what is open. Flags stay."""
        self._opened_folders.close()

    @property
    def owner(self) -> int:
        """The user whose store it is."""
        return self._owner

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Return the groups of objects that are held, and the folders in which each lies."""
        groups: dict[str, list[str]] = {"rest": list(_FIXED)}
        for name in self._names("packs"):
            if len(name) == 2 and _HEX.issuperset(name):
                groups[f"packs-{name}"] = [f"packs/{name}"]
        for name in self._names("points"):
            if len(name) == 32 and _HEX.issuperset(name):
                groups.setdefault(f"points-{name[:2]}", []).append(f"points/{name}")
        return {group: tuple(folders) for group, folders in groups.items()}

    def stamp(self, folders: Sequence[str]) -> tuple[int, ...]:
        """Return when names in the folders were last added or removed, in nanoseconds; 0 where there is no folder."""
        return tuple(self._changed_at(folder) for folder in folders)

    def objects(self, group: str, folders: Sequence[str]) -> set[str]:
        """Return the objects of a group that are there."""
        found = set()
        for folder in folders:
            for name in self._names(folder):
                key = f"{folder}/{name}" if folder else name
                if is_kept(key) and held_name(key) == group:
                    found.add(key)
        return found

    def is_held(self, key: str) -> bool:
        """Return whether an object has the flag. ``FileNotFoundError``; ``NotTouched``."""
        with self._opened(key) as descriptor:
            return bool((self._flags.read(descriptor) or 0) & IMMUTABLE)

    def check_finished(self, key: str) -> None:
        """Return when an object is finished and nobody else's. ``FileNotFoundError``; ``NotTouched``."""
        with self._opened(key):
            return

    def hold(self, key: str) -> None:
        """Flag an object. ``FileNotFoundError``; ``NotTouched``."""
        with self._opened(key) as descriptor:
            self._flags.change(descriptor, on=IMMUTABLE)

    def let_go(self, key: str) -> None:
        """Take the flag from an object, whatever has become of it. ``FileNotFoundError``."""
        with contextlib.suppress(NotTouched), self._opened(key) as descriptor:
            self._flags.change(descriptor, off=IMMUTABLE)

    def cut_second_names(self, key: str, *, made_before_s: float) -> None:
        """Remove names in ``tmp/`` of an object that was made before a moment: its writer died before it did so."""
        with self._folder(_TEMPORARY) as temporary:
            if temporary is None:
                return
            with self._opened(key, may_be_linked=True) as descriptor:
                ours = os.fstat(descriptor)
            if ours.st_mtime > made_before_s:
                return
            for name in _listed(temporary):
                with contextlib.suppress(FileNotFoundError):
                    facts = os.stat(name, dir_fd=temporary, follow_symlinks=False)
                    if (facts.st_dev, facts.st_ino) == (ours.st_dev, ours.st_ino):
                        os.unlink(name, dir_fd=temporary)

    def publish(self, name: str, content: bytes, *, held: bool = False) -> None:
        """Show a file to the store: the keeper's word, or with ``held`` what it holds of a group."""
        if not held:
            replace_file(self._own, name, content, mode=0o644)
            return
        folder = os.open(HELD_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._own)
        try:
            replace_file(folder, name, content, mode=0o644)
        finally:
            os.close(folder)

    def open_requests(self) -> int:
        """Return a descriptor of the folder into which the store writes requests."""
        return os.open(REQUESTS_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._own)

    def pin(self) -> None:
        """Keep the folders in their places: their names cannot be removed or changed. Safe to call twice."""
        for name in ("", "packs", "points"):
            with self._folder(name) as folder:
                if folder is not None:
                    self._flags.change(folder, on=APPEND_ONLY)

    def _check_store(self) -> None:
        names = set(_listed(self._root))
        if "holdfast.json" not in names:
            raise KeeperRefused(folder=str(self._path), reason="it is not the folder of a repository")

    def _make_own(self) -> int:
        """Return a descriptor of the keeper's own folder, made where it is missing."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(KEEPER_FOLDER, 0o755, dir_fd=self._root)
        try:
            own = os.open(KEEPER_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._root)
        except OSError as cause:
            if cause.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise KeeperRefused(folder=str(self._path), reason=f"{KEEPER_FOLDER} in it is not a folder") from cause
        if os.fstat(own).st_uid != os.geteuid():
            os.close(own)
            raise KeeperRefused(folder=str(self._path), reason=f"{KEEPER_FOLDER} in it was made by somebody else")
        os.fchmod(own, 0o755)
        for name, owner, mode in ((REQUESTS_FOLDER, self._owner, 0o700), (HELD_FOLDER, os.geteuid(), 0o755)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=own)
            os.chown(name, owner, -1, dir_fd=own, follow_symlinks=False)
            os.chmod(name, mode, dir_fd=own)
        return own

    def _probe(self) -> None:
        """Set and clear the flag once, so that an unsuitable place is told at the start."""
        descriptor = os.open(_PROBE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=self._own)
        try:
            self._flags.change(descriptor, on=IMMUTABLE)
            self._flags.change(descriptor, off=IMMUTABLE)
        except PermissionError as cause:
            raise KeeperNotRoot(folder=str(self._path)) from cause
        except OSError as cause:
            if cause.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
                raise
            reason = "its file system does not know the flag that holds a file (chattr +i)"
            raise KeeperRefused(folder=str(self._path), reason=reason) from cause
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.unlink(_PROBE, dir_fd=self._own)

    def _names(self, folder: str) -> list[str]:
        with self._folder(folder) as descriptor:
            return [] if descriptor is None else _listed(descriptor)

    def _changed_at(self, folder: str) -> int:
        with self._folder(folder) as descriptor:
            return 0 if descriptor is None else os.fstat(descriptor).st_mtime_ns

    @contextlib.contextmanager
    def _folder(self, folder: str) -> Iterator[int | None]:
        """Yield a descriptor of a folder of the store; None when there is none, or something else in its place."""
        descriptors = [os.dup(self._root)]
        try:
            for name in filter(None, folder.split("/")):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                try:
                    descriptors.append(os.open(name, flags, dir_fd=descriptors[-1]))
                except OSError as cause:
                    if cause.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        raise
                    yield None
                    return
            is_ours = os.fstat(descriptors[-1]).st_dev == self._device
            yield descriptors[-1] if is_ours else None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @contextlib.contextmanager
    def _opened(self, key: str, *, may_be_linked: bool = False) -> Iterator[int]:
        """Yield a descriptor of an object that may be touched. ``FileNotFoundError``; ``NotTouched``."""
        folder, _, name = key.rpartition("/")
        with self._folder(folder) as parent:
            if parent is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)
            try:
                # A pipe in the place of a file must not make root wait for its writer.
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
            except OSError as cause:
                if cause.errno not in (errno.ELOOP, errno.ENXIO):
                    raise
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key) from cause
            try:
                facts = os.fstat(descriptor)
                if not stat.S_ISREG(facts.st_mode) or facts.st_dev != self._device:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), key)
                if facts.st_uid != self._owner or (facts.st_nlink != 1 and not may_be_linked):
                    raise NotTouched(key)
                yield descriptor
            finally:
                os.close(descriptor)


def _listed(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]
