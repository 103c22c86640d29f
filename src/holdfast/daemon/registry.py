"""The registry as files: one small JSON document per pool and per repository, replaced atomically.

Readable and editable by an admin, copied by any file backup. Invariant: a file is whole or absent, and holds no secret.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from holdfast.core import ExitStatus, HoldfastError, format_time, from_builtins, from_json, mapped, parse_time
from holdfast.model import PoolUuid, RepositoryId
from holdfast.service import KeyMemory, LineLimits, NameTaken, NameUnknown, PoolConfig, RepositoryConfig
from holdfast.storage import StoreOptions

__all__ = ["ConfigDamaged", "ConfigNotWritable", "FileRegistry", "NameInvalid", "write_private_file"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NameInvalid(HoldfastError):
    """A name that cannot be a file name everywhere."""

    code = "config.name-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Use letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit."

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} cannot be used as a name")


class ConfigDamaged(HoldfastError):
    """A configuration file cannot be understood."""

    code = "config.damaged"
    effect = "The pool or repository it describes is not reachable by its name; its data is untouched."

    def __init__(self, *, path: Path, what: str) -> None:
        super().__init__(f"{path} is not a configuration of ours: {what}")
        self.path = str(path)

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Repair or delete {self.path}, then add the pool or connect the repository again."


class ConfigNotWritable(HoldfastError):
    """Our own folder cannot be written."""

    code = "config.not-writable"
    exit_status = ExitStatus.FAILED
    effect = "Nothing was remembered; restore points and pools are untouched."
    advice = "Check owner, permissions and free space of that folder, or choose another with --home or $HOLDFAST_HOME."

    def __init__(self, *, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be written: {why}")
        self.path, self.why = str(path), why


def write_private_file(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Put ``data`` at ``path``, mode 0600, atomically and durably; folders are made with mode 0700.

    With ``replace`` off, a file that is there already wins and stays as it is. ``ConfigNotWritable``.
    """
    with mapped(OSError, to=lambda cause: ConfigNotWritable(path=path, why=_reason(cause))):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _temporary_file(path.parent, data) as temporary:
            if replace:
                temporary.replace(path)
            else:
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _temporary_file(folder: Path, data: bytes) -> Iterator[Path]:
    """Give a durable file with that content, removed at the end unless it was moved away."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _reason(cause: BaseException) -> str:
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)


class FileRegistry:
    """See ``holdfast.service.Registry``; kept in ``<folder>/pools`` and ``<folder>/repositories``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pools(self) -> list[PoolConfig]:
        """See ``Registry.pools``."""
        return [_pool_from(path) for path in self._files("pools")]

    def pool(self, name: str) -> PoolConfig:
        """See ``Registry.pool``."""
        return _pool_from(self._existing("pool", name))

    def check_pool_name(self, name: str) -> None:
        """See ``Registry.check_pool_name``."""
        self._check_free("pool", name)

    def add_pool(self, config: PoolConfig) -> None:
        """See ``Registry.add_pool``."""
        self._write(self._check_free("pool", config.name), _pool_document(config))

    def replace_pool(self, config: PoolConfig) -> None:
        """See ``Registry.replace_pool``."""
        self._write(self._existing("pool", config.name), _pool_document(config))

    def remove_pool(self, name: str) -> None:
        """See ``Registry.remove_pool``."""
        self._existing("pool", name).unlink(missing_ok=True)

    def repositories(self) -> list[RepositoryConfig]:
        """See ``Registry.repositories``."""
        return [_repository_from(path) for path in self._files("repositories")]

    def repository(self, name: str) -> RepositoryConfig:
        """See ``Registry.repository``."""
        return _repository_from(self._existing("repository", name))

    def check_repository_name(self, name: str) -> None:
        """See ``Registry.check_repository_name``."""
        self._check_free("repository", name)

    def add_repository(self, config: RepositoryConfig) -> None:
        """See ``Registry.add_repository``."""
        self._write(self._check_free("repository", config.name), _repository_document(config))

    def replace_repository(self, config: RepositoryConfig) -> None:
        """See ``Registry.replace_repository``."""
        self._write(self._existing("repository", config.name), _repository_document(config))

    def remove_repository(self, name: str) -> None:
        """See ``Registry.remove_repository``."""
        self._existing("repository", name).unlink(missing_ok=True)

    def _files(self, kind_plural: str) -> list[Path]:
        return sorted((self._folder / kind_plural).glob("[!.]*.json"))

    def _path(self, kind: str, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise NameInvalid(name)
        return self._folder / ("pools" if kind == "pool" else "repositories") / f"{name}.json"

    def _existing(self, kind: str, name: str) -> Path:
        path = self._path(kind, name)
        if not path.exists():
            known = ", ".join(each.stem for each in self._files(path.parent.name))
            raise NameUnknown(kind=kind, name=name, known=known)
        return path

    def _check_free(self, kind: str, name: str) -> Path:
        path = self._path(kind, name)
        if path.exists():
            raise NameTaken(kind=kind, name=name)
        # Asked before anything is made elsewhere: a recovery key must not be lost because its entry cannot be kept.
        with mapped(OSError, to=lambda cause: ConfigNotWritable(path=path, why=_reason(cause))):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _temporary_file(path.parent, b""):
                pass
        return path

    def _write(self, path: Path, document: msgspec.Struct) -> None:
        write_private_file(path, msgspec.json.format(msgspec.json.encode(document)) + b"\n")


class _PoolDocument(msgspec.Struct, kw_only=True):
    name: str
    url: str
    user: str
    trust: str
    other_hosts: tuple[str, ...] = ()
    pool: str
    added_at: str


class _KeyDocument(msgspec.Struct, kw_only=True):
    fingerprint: str = ""
    epoch: int = 0
    epoch_fingerprint: str = ""
    proven: dict[str, str] = {}


class _LimitsDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    up_bytes_per_s_max: Annotated[int, msgspec.Meta(gt=0)] | None = None
    down_bytes_per_s_max: Annotated[int, msgspec.Meta(gt=0)] | None = None


class _RepositoryDocument(msgspec.Struct, kw_only=True):
    name: str
    location: str
    options: dict[str, str | bool] = {}
    credentials: str = ""
    keys: _KeyDocument = msgspec.field(default_factory=_KeyDocument)
    limits: _LimitsDocument = msgspec.field(default_factory=_LimitsDocument)
    repository: str
    added_at: str


_Document = TypeVar("_Document", bound=msgspec.Struct)


def _pool_document(config: PoolConfig) -> _PoolDocument:
    return _PoolDocument(
        name=config.name,
        url=config.url,
        user=config.user,
        trust=config.trust,
        other_hosts=config.other_hosts,
        pool=config.pool,
        added_at=format_time(config.added_at),
    )


def _repository_document(config: RepositoryConfig) -> _RepositoryDocument:
    unset = StoreOptions()
    options = {
        each.name: value.value if isinstance(value, enum.Enum) else value
        for each in fields(StoreOptions)
        if (value := getattr(config.options, each.name)) != getattr(unset, each.name)
    }
    return _RepositoryDocument(
        name=config.name,
        location=config.location,
        options=options,
        credentials=config.credentials,
        keys=_KeyDocument(
            fingerprint=config.keys.fingerprint,
            epoch=config.keys.epoch,
            epoch_fingerprint=config.keys.epoch_fingerprint,
            proven={holder: format_time(moment) for holder, moment in config.keys.proven.items()},
        ),
        limits=_LimitsDocument(
            up_bytes_per_s_max=config.limits.up_bytes_per_s_max,
            down_bytes_per_s_max=config.limits.down_bytes_per_s_max,
        ),
        repository=config.repository,
        added_at=format_time(config.added_at),
    )


def _options_from(path: Path, told: Mapping[str, str | bool]) -> StoreOptions:
    """Return the options in a document. One that is not known is refused: it may be the one that protects."""
    strange = told.keys() - {each.name for each in fields(StoreOptions)}
    if strange:
        raise ConfigDamaged(path=path, what=f"option {min(strange)} is not known to this version")
    try:
        return from_builtins(told, StoreOptions)
    except msgspec.ValidationError as cause:
        raise ConfigDamaged(path=path, what=str(cause)) from cause


def _read(path: Path, kind: type[_Document]) -> _Document:
    try:
        return from_json(path.read_bytes(), kind)
    except (OSError, ValueError) as cause:
        raise ConfigDamaged(path=path, what=str(cause)) from cause


def _moment(path: Path, text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError as cause:
        raise ConfigDamaged(path=path, what=str(cause)) from cause


def _pool_from(path: Path) -> PoolConfig:
    found = _read(path, _PoolDocument)
    return PoolConfig(
        name=found.name,
        url=found.url,
        user=found.user,
        trust=found.trust,
        other_hosts=found.other_hosts,
        pool=PoolUuid(found.pool),
        added_at=_moment(path, found.added_at),
    )


def _repository_from(path: Path) -> RepositoryConfig:
    found = _read(path, _RepositoryDocument)
    return RepositoryConfig(
        name=found.name,
        location=found.location,
        options=_options_from(path, found.options),
        credentials=found.credentials,
        keys=KeyMemory(
            fingerprint=found.keys.fingerprint,
            epoch=found.keys.epoch,
            epoch_fingerprint=found.keys.epoch_fingerprint,
            proven={holder: _moment(path, text) for holder, text in found.keys.proven.items()},
        ),
        limits=LineLimits(
            up_bytes_per_s_max=found.limits.up_bytes_per_s_max,
            down_bytes_per_s_max=found.limits.down_bytes_per_s_max,
        ),
        repository=RepositoryId(found.repository),
        added_at=_moment(path, found.added_at),
    )
