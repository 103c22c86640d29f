"""``holdfast.json``: what a repository is, in clear text, and the feature flags that a reader must know.

Invariant: the file is written once. Later versions add objects below ``features/`` instead of changing it.
"""

from __future__ import annotations

import contextlib
import enum
from datetime import datetime

import msgspec

from holdfast.core import BLOCK_BYTES, ExitStatus, HoldfastError, format_time, from_json, limits, parse_time
from holdfast.model import RepositoryId
from holdfast.repository import layout
from holdfast.repository.layout import CONFIG_KEY, FEATURES_PREFIX
from holdfast.repository.sealing import KeyRing
from holdfast.storage import ObjectExists, ObjectMissing, ObjectStore

__all__ = [
    "KEY_EPOCHS",
    "Compression",
    "ConfigDamaged",
    "NeedsNewerHoldfast",
    "NotARepository",
    "RepositoryConfig",
    "check_config_mac",
    "new_config",
    "read_config",
    "set_read_flag",
    "unknown_write_flags",
    "write_config",
]

KEY_EPOCHS = "key-epochs"
READ_FLAGS_KNOWN = frozenset({KEY_EPOCHS})
WRITE_FLAGS_KNOWN: frozenset[str] = frozenset({"holes", "immutability"})


class Compression(enum.Enum):
    """How hard blocks are compressed."""

    STANDARD = "standard"
    SMALL = "small"
    """About 5 % smaller on real disks, for about 40 % more CPU time."""

    @property
    def level(self) -> int:
        """The zstd level."""
        return 1 if self is Compression.STANDARD else 3


class NotARepository(HoldfastError):
    """There is no repository at this place."""

    code = "repository.not-a-repository"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was read or written there."
    advice = "Check the place; 'holdfast repository create' makes a new repository."

    def __init__(self, *, store: str) -> None:
        super().__init__(f"{store} holds no repository (no {CONFIG_KEY})")
        self.store = store


class ConfigDamaged(HoldfastError):
    """The repository's own description is not what was written."""

    code = "repository.config-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "The repository cannot be opened; its packs and restore points are not concerned."
    advice = f"Bring {CONFIG_KEY} back from a copy of the repository; it never changes after creation."

    def __init__(self, *, store: str, reason: str) -> None:
        super().__init__(f"{store}: object {CONFIG_KEY}: {reason}")
        self.store, self.reason = store, reason


class NeedsNewerHoldfast(HoldfastError):
    """The repository uses something that this version does not know."""

    code = "repository.needs-newer"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed; the restore points are usable with a newer Holdfast."
    advice = "Install a newer version of Holdfast."

    def __init__(self, *, store: str, flag: str, action: str) -> None:
        super().__init__(
            f"{store}: to {action} this repository Holdfast must know {flag!r}, which is newer than this one"
        )
        self.store, self.flag, self.action = store, flag, action


class RepositoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``holdfast.json``. Unknown fields are covered by the proof too, and otherwise skipped."""

    format: str
    version: int
    repository: str
    created_at: str
    block_bytes: int
    pack_bytes_max: int
    leaf_blocks: int
    compression: str
    features_read: tuple[str, ...] = ()
    features_write: tuple[str, ...] = ()
    proof: str = ""

    @property
    def id(self) -> RepositoryId:
        """The repository's id."""
        return RepositoryId(self.repository)

    @property
    def created(self) -> datetime:
        """When the repository was created."""
        return parse_time(self.created_at)


def new_config(
    *, repository: RepositoryId, created_at: datetime, compression: Compression, pack_bytes_max: int
) -> RepositoryConfig:
    """Return the description of a new repository, without its proof."""
    return RepositoryConfig(
        format=layout.FORMAT_NAME,
        version=layout.FORMAT_VERSION,
        repository=repository,
        created_at=format_time(created_at),
        block_bytes=BLOCK_BYTES,
        pack_bytes_max=pack_bytes_max,
        leaf_blocks=layout.LEAF_BLOCKS,
        compression=compression.value,
    )


def write_config(store: ObjectStore, config: RepositoryConfig, keys: KeyRing) -> None:
    """Store the description with its proof. ``ObjectExists`` when there is a repository already."""
    fields = msgspec.to_builtins(config)
    del fields["proof"]
    fields["proof"] = keys.config_mac(_canonical(fields))
    store.put(CONFIG_KEY, msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n")


def read_config(store: ObjectStore) -> tuple[RepositoryConfig, bytes]:
    """Return the description and its text as it lies in the store. Checks everything but the proof."""
    try:
        text = store.get(CONFIG_KEY)
    except ObjectMissing as cause:
        raise NotARepository(store=store.describe()) from cause
    try:
        config = from_json(text, RepositoryConfig)
        compressions = [each.value for each in Compression]
        is_sound = (
            config.format == layout.FORMAT_NAME
            and len(bytes.fromhex(config.repository)) == 16
            and bool(config.created)
            and (config.version != layout.FORMAT_VERSION or config.compression in compressions)
        )
    except (msgspec.DecodeError, ValueError) as cause:
        raise ConfigDamaged(store=store.describe(), reason=str(cause)) from cause
    if not is_sound:
        raise ConfigDamaged(store=store.describe(), reason="it does not describe a Holdfast repository")
    _check_known(store, config)
    return config, text


def check_config_mac(store: ObjectStore, text: bytes, keys: KeyRing) -> None:
    """Return when the description was written by a holder of this repository key; ``ConfigDamaged`` otherwise."""
    try:
        fields = from_json(text, dict[str, object])
    except (msgspec.DecodeError, ValueError) as cause:
        raise ConfigDamaged(store=store.describe(), reason=str(cause)) from cause
    proof = fields.pop("proof", "")
    if proof != keys.config_mac(_canonical(fields)):
        raise ConfigDamaged(store=store.describe(), reason="its proof does not match the repository key")


def set_read_flag(store: ObjectStore, flag: str) -> None:
    """Return when the flag is set: versions that do not know it refuse the repository. Safe to call twice."""
    with contextlib.suppress(ObjectExists):
        store.put(f"{FEATURES_PREFIX}read/{flag}", b"")


def unknown_write_flags(store: ObjectStore, config: RepositoryConfig) -> list[str]:
    """Return the flags that a writer must know and this version does not."""
    return sorted(_flags(store, "write", config.features_write) - WRITE_FLAGS_KNOWN)


def _check_known(store: ObjectStore, config: RepositoryConfig) -> None:
    if config.version != layout.FORMAT_VERSION:
        raise NeedsNewerHoldfast(store=store.describe(), flag=f"format {config.version}", action="read")
    expected = (BLOCK_BYTES, layout.LEAF_BLOCKS)
    if (config.block_bytes, config.leaf_blocks) != expected or config.pack_bytes_max > limits.PACK_BYTES_MAX:
        raise NeedsNewerHoldfast(store=store.describe(), flag="other block or pack sizes", action="read")
    for flag in sorted(_flags(store, "read", config.features_read) - READ_FLAGS_KNOWN):
        raise NeedsNewerHoldfast(store=store.describe(), flag=flag, action="read")


def _flags(store: ObjectStore, kind: str, built_in: tuple[str, ...]) -> frozenset[str]:
    prefix = f"{FEATURES_PREFIX}{kind}/"
    return frozenset(built_in) | {info.key.removeprefix(prefix) for info in store.list(prefix)}


def _canonical(fields: dict[str, object]) -> bytes:
    return msgspec.json.encode(fields, order="sorted")
