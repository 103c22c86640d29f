"""The registry as files: one small JSON document per pool and per repository, replaced atomically.

Readable and editable by an admin, copied by any file backup. Invariant: a file is whole or absent, and holds no secret.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path

from holdfast.core import ExitStatus, HoldfastError, format_time, parse_time
from holdfast.model import PoolUuid, RepositoryId
from holdfast.service import NameTaken, NameUnknown, PoolConfig, RepositoryConfig

__all__ = ["ConfigDamaged", "FileRegistry", "NameInvalid", "write_private_file"]

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


def write_private_file(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Put ``data`` at ``path``, mode 0600, atomically and durably; folders are made with mode 0700.

    With ``replace`` off, a file that is there already wins and stays as it is.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            Path(temporary).replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
        document = {
            "name": config.name,
            "url": config.url,
            "user": config.user,
            "trust": config.trust,
            "pool": config.pool,
            "added_at": format_time(config.added_at),
        }
        self._add("pool", config.name, document)

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
        document = {
            "name": config.name,
            "location": config.location,
            "repository": config.repository,
            "added_at": format_time(config.added_at),
        }
        self._add("repository", config.name, document)

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
        return path

    def _add(self, kind: str, name: str, document: dict[str, str]) -> None:
        path = self._check_free(kind, name)
        write_private_file(path, (json.dumps(document, indent=2) + "\n").encode())


def _document(path: Path, fields: tuple[str, ...]) -> dict[str, str]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as cause:
        raise ConfigDamaged(path=path, what=str(cause)) from cause
    if not isinstance(document, dict):
        raise ConfigDamaged(path=path, what="not a JSON object")
    missing = [name for name in fields if not isinstance(document.get(name), str)]
    if missing:
        raise ConfigDamaged(path=path, what=f"without {', '.join(missing)}")
    return document


def _pool_from(path: Path) -> PoolConfig:
    document = _document(path, ("name", "url", "user", "trust", "pool", "added_at"))
    try:
        added_at = parse_time(document["added_at"])
    except ValueError as cause:
        raise ConfigDamaged(path=path, what=str(cause)) from cause
    return PoolConfig(
        name=document["name"],
        url=document["url"],
        user=document["user"],
        trust=document["trust"],
        pool=PoolUuid(document["pool"]),
        added_at=added_at,
    )


def _repository_from(path: Path) -> RepositoryConfig:
    document = _document(path, ("name", "location", "repository", "added_at"))
    try:
        added_at = parse_time(document["added_at"])
    except ValueError as cause:
        raise ConfigDamaged(path=path, what=str(cause)) from cause
    return RepositoryConfig(
        name=document["name"],
        location=document["location"],
        repository=RepositoryId(document["repository"]),
        added_at=added_at,
    )
