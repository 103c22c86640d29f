"""A store in a folder of an SMB share, spoken to directly: no mount, no root.

The files are those of ``PosixStore`` (``docs/formats/store.md``), so a share can be used mounted and not mounted in
turn. A put writes a temporary in ``tmp/``, flushes it, and names it with a hard link, which fails if the name is taken.
Where the server's file system has none, it renames under a claim that only one writer can hold.

Invariant: a name appears with the whole object behind it or does not appear, and never replaces another.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from blake3 import blake3

from holdfast.core import Entropy, Secret, SystemEntropy, limits
from holdfast.model import Extent
from holdfast.storage.credentials import CredentialsMissing
from holdfast.storage.errors import (
    KeyRefused,
    ObjectExists,
    ObjectMissing,
    RangeNotSatisfiable,
    StoreEmpty,
    StoreMissing,
    StoreNotAFolder,
    StoreUnreachable,
    error_of_os,
)
from holdfast.storage.keys import SEGMENTS_MAX, TEMPORARY_FOLDER, check_key, check_prefix, is_segment
from holdfast.storage.place import StorePlace
from holdfast.storage.smb_errors import SmbUserMissing
from holdfast.storage.smb_file import SmbEntry, SmbFile
from holdfast.storage.smb_link import SmbLink
from holdfast.storage.smb_links import SmbLinks
from holdfast.storage.smb_place import SmbPlace, parse_smb_location
from holdfast.storage.store import ObjectInfo, Parts, as_views

__all__ = ["SmbStore", "open_smb_store"]

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.EACCES})
"""How servers refuse hard links on file systems without them; FAT and some network disks."""

_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
"""Names that Windows keeps for itself, whatever follows after a dot."""


class SmbStore:
    """Objects as files of a share. ``close`` logs out; so does the end of the process."""

    def __init__(
        self, place: SmbPlace, *, password: Secret, create: bool = False, entropy: Entropy | None = None
    ) -> None:
        """Open the store in an existing folder; with ``create`` make the folder (not its parents) where it is missing.

        Raises ``SmbUserMissing``, ``SmbLoginRefused``, ``SmbShareMissing``, ``SmbEncryptionMissing``,
        ``StoreUnreachable``, ``StoreMissing``, ``StoreNotAFolder``, ``StoreEmpty``, ``StoreNotReadable``,
        ``StoreNotWritable``.
        """
        if not place.user:
            raise SmbUserMissing(store=place.describe())
        random = entropy or SystemEntropy()
        self._place = place
        self._entropy = random
        self._lock = threading.Lock()
        self._known_folders: set[str] = set()
        # A name of its own for each: servers with several channels hand connections of one client to one process.
        self._links = SmbLinks(lambda: SmbLink(place, password=password, client_guid=random.token_bytes(16)))
        try:
            if create:
                self._create()
            self._has_temporary = self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Log out. The store is of no use afterwards; safe to call twice."""
        self._links.close()

    def put(self, key: str, parts: Parts, *, locked_until: datetime | None = None) -> None:
        """See ``ObjectStore.put``."""
        _check_key(key)
        folder = key.rpartition("/")[0]
        with self._linked(key, writing=True) as link:
            if not self._has_temporary:
                link.make_folder(self._path(TEMPORARY_FOLDER))
                self._has_temporary = True
            with self._temporary(key, link) as temporary:
                try:
                    temporary.write(as_views(parts))
                    temporary.flush()
                    self._make_folders(link, folder)
                    is_renamed = self._publish(key, link, temporary)
                except BaseException:
                    if link.is_usable:
                        with contextlib.suppress(OSError):
                            temporary.delete()
                    raise
                if not is_renamed:
                    temporary.delete()
            link.make_folder_durable(self._path(folder))

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        with self._object(key) as opened:
            return self._read(key, opened, offset_bytes=0, length_bytes=opened.length_bytes)

    def get_range(self, key: str, *, offset_bytes: int, length_bytes: int) -> bytes:
        """See ``ObjectStore.get_range``."""
        assert offset_bytes >= 0
        assert length_bytes >= 0
        with self._object(key) as opened:
            return self._read(key, opened, offset_bytes=offset_bytes, length_bytes=length_bytes)

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        with self._object(key) as opened:
            return opened.length_bytes

    def stored_at(self, key: str) -> datetime | None:
        """See ``ObjectStore.stored_at``: when the file was last written to, by the server's clock."""
        with self._object(key) as opened:
            return datetime.fromtimestamp(opened.written_s, tz=UTC)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``. No login is held between two folders."""
        check_prefix(prefix)
        folder, _, tail = prefix.rpartition("/")
        if folder.split("/")[0] == TEMPORARY_FOLDER:
            return iter(())
        return self._walk(folder, tail=tail)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``. The folder stays: another writer may be about to use it."""
        _check_key(key)
        with self._linked(key, writing=True) as link:
            try:
                with link.opened(self._path(key), deleting=True) as opened:
                    opened.delete()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._check_reachable(link, key)
                return
            link.make_folder_durable(self._path(key.rpartition("/")[0]))

    def try_punch(self, key: str, extents: Sequence[Extent]) -> int | None:
        """See ``ObjectStore.try_punch``."""
        with self._object(key, writing=True) as opened:
            for extent in extents:
                self._check_range(key, opened, offset_bytes=extent.offset_bytes, length_bytes=extent.length_bytes)
            try:
                for extent in extents:
                    opened.punch(offset_bytes=extent.offset_bytes, length_bytes=extent.length_bytes)
            except OSError as refusal:
                if refusal.errno in _UNSUPPORTED:
                    return None
                raise
            opened.flush()
        return sum(extent.length_bytes for extent in extents)

    def try_lock(self, key: str, until: datetime) -> datetime | None:
        """See ``ObjectStore.try_lock``: a share cannot lock; a keeper on its file server can."""
        self.size(key)
        return None

    def locked_until(self, key: str) -> datetime | None:
        """See ``ObjectStore.locked_until``."""
        self.size(key)
        return None

    def free_bytes(self) -> int | None:
        """See ``ObjectStore.free_bytes``: what the server leaves to this user, quotas counted."""
        with self._linked(None) as link, link.folder(self._path("")) as root:
            return root.free_bytes()

    def describe(self) -> str:
        """See ``ObjectStore.describe``."""
        return self._place.describe()

    def sweep_temporaries(self, *, older_than_s: float = limits.TEMPORARY_AGE_S_MIN) -> int:
        """Remove what dead writers left in ``tmp/``; return how many bytes that were.

        As ``PosixStore.sweep_temporaries``: by the server's own clock, which a file of ours tells.
        """
        assert older_than_s >= limits.TEMPORARY_AGE_S_MIN
        swept_bytes = 0
        with self._linked(None, writing=True) as link:
            try:
                with link.folder(self._path(TEMPORARY_FOLDER)) as folder:
                    entries = [each for each in folder.entries() if not each.is_folder]
            except FileNotFoundError:
                return 0
            if not entries:
                return 0
            now_s = self._server_clock_s(link)
            for entry in entries:
                if now_s - entry.written_s > older_than_s:
                    with (
                        contextlib.suppress(FileNotFoundError),
                        link.opened(self._path(f"{TEMPORARY_FOLDER}/{entry.name}"), deleting=True) as old,
                    ):
                        old.delete()
                        swept_bytes += entry.length_bytes
        return swept_bytes

    def _path(self, key: str) -> str:
        """Return the path in the share of a key or folder of the store; the empty key is the store's own folder."""
        return "\\".join((*self._place.folder, *(key.split("/") if key else ())))

    def _create(self) -> None:
        with self._linked(None, writing=True) as link:
            if self._place.folder:
                try:
                    link.make_folder(self._path(""))
                except FileNotFoundError:
                    # Making parents would hide a typing mistake: the backup would land where nobody looks for it.
                    raise StoreMissing(path=f"above {self.describe()}") from None
                except (NotADirectoryError, FileExistsError):
                    raise StoreNotAFolder(path=self.describe()) from None
            link.make_folder(self._path(TEMPORARY_FOLDER))
            link.make_folder_durable(self._path(""))

    def _open(self) -> bool:
        """Return whether ``tmp/`` is there; without it the store can be read, and the first put makes it."""
        with self._linked(None) as link:
            try:
                with link.folder(self._path("")) as root:
                    names = {entry.name for entry in root.entries()}
            except FileNotFoundError:
                raise StoreMissing(path=self.describe()) from None
            except NotADirectoryError:
                raise StoreNotAFolder(path=self.describe()) from None
        if not names:
            raise StoreEmpty(path=self.describe())
        return TEMPORARY_FOLDER in names

    @contextlib.contextmanager
    def _temporary(self, key: str, link: SmbLink) -> Iterator[SmbFile]:
        name = f"put-{self._entropy.token_bytes(8).hex()}"
        path = self._path(f"{TEMPORARY_FOLDER}/{name}")
        with contextlib.ExitStack() as stack:
            try:
                temporary = stack.enter_context(link.created(path))
            except FileNotFoundError:
                self._check_reachable(link, key)
                raise
            yield temporary

    def _make_folders(self, link: SmbLink, folder: str) -> None:
        """Make the folder and its parents below the root, each durable before anything is named in it."""
        if not folder or folder in self._known_folders:
            return
        parent = folder.rpartition("/")[0]
        self._make_folders(link, parent)
        try:
            link.make_folder(self._path(folder))
        except (NotADirectoryError, FileExistsError):
            raise KeyRefused(key=folder, reason="one object would be the folder of another") from None
        link.make_folder_durable(self._path(parent))
        with self._lock:
            self._known_folders.add(folder)

    def _publish(self, key: str, link: SmbLink, temporary: SmbFile) -> bool:
        """Give the finished file its name, only if that is free; return whether it has left ``tmp/`` by that."""
        try:
            return self._link_or_rename(key, link, temporary)
        except (FileExistsError, IsADirectoryError):
            if self._is_folder(link, key):
                raise KeyRefused(key=key, reason="one object would be the folder of another") from None
            raise ObjectExists(store=self.describe(), key=key) from None
        except (FileNotFoundError, NotADirectoryError) as cause:
            # Somebody removed the folder: forget what we knew, so that a repeated put starts afresh.
            with self._lock:
                self._known_folders.clear()
            raise StoreUnreachable(store=self.describe(), key=key, reason="its folder has just vanished") from cause

    def _link_or_rename(self, key: str, link: SmbLink, temporary: SmbFile) -> bool:
        try:
            temporary.link_to(self._path(key))
        except OSError as refusal:
            if refusal.errno not in _UNSUPPORTED:
                raise
        else:
            return False
        # A rename alone would do by the protocol, but Samba looks for the new name first and renames then: of two
        # writers both may win (rename_internals_fsp, 4.17). So writers exclude each other.
        claim = f"{TEMPORARY_FOLDER}/claim-{blake3(key.encode()).hexdigest(16)}"
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(link.claimed(self._path(claim)))
            except FileExistsError as cause:
                if self._is_file(link, key):
                    raise
                reason = "another writer is just giving an object this name"
                raise StoreUnreachable(store=self.describe(), key=key, reason=reason) from cause
            temporary.rename_to(self._path(key))
        return True

    def _walk(self, folder: str, *, tail: str) -> Iterator[ObjectInfo]:
        """Yield what is below one folder, of the names that start with ``tail``, in the order of their keys."""
        for order, entry in self._entries(folder, tail=tail):
            key = f"{folder}/{order}" if folder else order
            if not entry.is_folder:
                yield ObjectInfo(key, entry.length_bytes)
            elif key != f"{TEMPORARY_FOLDER}/" and key.count("/") < SEGMENTS_MAX:
                yield from self._walk(key[:-1], tail="")

    def _entries(self, folder: str, *, tail: str) -> Sequence[tuple[str, SmbEntry]]:
        """Return the files and folders with a proper name, sorted; folders carry a slash at the end of their name."""
        with self._linked(None) as link:
            try:
                with link.folder(self._path(folder)) as opened:
                    found = list(opened.entries())
            except (FileNotFoundError, NotADirectoryError):
                self._check_reachable(link, None)
                return []  # no such folder: nothing starts with that prefix
        named = [each for each in found if each.name.startswith(tail) and is_segment(each.name)]
        return sorted((each.name + "/" if each.is_folder else each.name, each) for each in named)

    @contextlib.contextmanager
    def _object(self, key: str, *, writing: bool = False) -> Iterator[SmbFile]:
        """Open an object; ``ObjectMissing`` when there is none."""
        _check_key(key)
        with self._linked(key, writing=writing) as link, contextlib.ExitStack() as stack:
            try:
                opened = stack.enter_context(link.opened(self._path(key), writing=writing))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._check_reachable(link, key)
                raise ObjectMissing(store=self.describe(), key=key) from None
            yield opened

    def _read(self, key: str, opened: SmbFile, *, offset_bytes: int, length_bytes: int) -> bytes:
        self._check_range(key, opened, offset_bytes=offset_bytes, length_bytes=length_bytes)
        content = opened.read(offset_bytes=offset_bytes, length_bytes=length_bytes) if length_bytes else b""
        if len(content) != length_bytes:
            raise RangeNotSatisfiable(
                store=self.describe(),
                key=key,
                offset_bytes=offset_bytes,
                length_bytes=length_bytes,
                size_bytes=offset_bytes + len(content),
            )
        return content

    def _check_range(self, key: str, opened: SmbFile, *, offset_bytes: int, length_bytes: int) -> None:
        if offset_bytes + length_bytes > opened.length_bytes:
            raise RangeNotSatisfiable(
                store=self.describe(),
                key=key,
                offset_bytes=offset_bytes,
                length_bytes=length_bytes,
                size_bytes=opened.length_bytes,
            )

    def _is_folder(self, link: SmbLink, key: str) -> bool:
        try:
            with link.folder(self._path(key)):
                return True
        except OSError as refusal:
            if refusal.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise

    def _check_reachable(self, link: SmbLink, key: str | None) -> None:
        """Raise when the store's folder has gone: then a missing name proves nothing."""
        mark = TEMPORARY_FOLDER if self._has_temporary else ""
        if not self._is_folder(link, mark):
            reason = "its folder has vanished; does the server still have its disk?"
            raise StoreUnreachable(store=self.describe(), key=key, reason=reason)

    def _is_file(self, link: SmbLink, key: str) -> bool:
        try:
            with link.opened(self._path(key)):
                return True
        except FileNotFoundError:
            return False

    def _server_clock_s(self, link: SmbLink) -> float:
        """Return the server's time: that of a file it has just made."""
        name = f"{TEMPORARY_FOLDER}/put-{self._entropy.token_bytes(8).hex()}"
        with link.created(self._path(name)) as mark:
            mark.delete()
            return mark.written_s

    @contextlib.contextmanager
    def _linked(self, key: str | None, *, writing: bool = False) -> Iterator[SmbLink]:
        try:
            with self._links.link() as link:
                yield link
        except OSError as cause:
            raise error_of_os(cause, store=self.describe(), key=key, writing=writing) from cause


def open_smb_store(place: StorePlace, *, create: bool) -> SmbStore:
    """Return the store at a location, its user and domain from there or, where it names none, from the credentials.

    ``LocationRefused``, ``CredentialsMissing``, and what ``SmbStore`` raises.
    """
    share = parse_smb_location(place.location)
    user, domain, password = (place.credentials.get(f"SMB_{name}") for name in ("USER", "DOMAIN", "PASSWORD"))
    if password is None:
        raise CredentialsMissing(location=share.location, names=["SMB_PASSWORD"])
    if not share.user and user is not None:
        share = replace(share, user=user.reveal(), domain=domain.reveal() if domain is not None else "")
    return SmbStore(share, password=password, create=create)


def _check_key(key: str) -> None:
    """Refuse what no store takes, and names that servers for Windows would change or keep for themselves."""
    check_key(key)
    for segment in key.split("/"):
        if segment.endswith(".") or segment.partition(".")[0].lower() in _DEVICES:
            raise KeyRefused(key=key, reason=f"an SMB server cannot keep a file named {segment}")
