"""Condemned lists: packs that garbage collection means to delete. A writer that can see one keeps clear of its packs.

Invariant: a pack is deleted only while a condemned list that names it is in the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from holdfast.core import format_time, parse_time
from holdfast.repository.layout import CONDEMNED_PREFIX, ObjectKind, PackId
from holdfast.repository.packs.pack_set import PackSet, as_ids
from holdfast.repository.safety import Safety
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["CondemnedList", "list_condemned", "write_condemned"]


class _CondemnedRecord(msgspec.Struct, frozen=True, kw_only=True):
    made_at: str
    packs: bytes


@dataclass(frozen=True, slots=True)
class CondemnedList:
    """A list as it was found. ``packs`` is None when it cannot be read: then any pack may be meant."""

    key: str
    made_at: datetime | None
    packs: PackSet | None

    def is_abandoned(self, now: datetime, safety: Safety) -> bool:
        """Return whether its collector has certainly stopped deleting. Nobody deletes by a list that is damaged."""
        if self.made_at is None:
            return True
        return (now - self.made_at).total_seconds() > safety.collection_s + safety.clock_skew_s


def list_condemned(vault: Vault) -> list[CondemnedList]:
    """Return all lists there are, oldest first."""
    found = []
    for info in list(vault.names(CONDEMNED_PREFIX)):
        try:
            payload = vault.read(info.key, kind=ObjectKind.CONDEMNED)
            record = msgspec.msgpack.decode(payload, type=_CondemnedRecord)
            found.append(CondemnedList(info.key, parse_time(record.made_at), PackSet(as_ids(record.packs))))
        except ObjectMissing:
            continue
        except (SealBroken, msgspec.DecodeError, ValueError):
            found.append(CondemnedList(info.key, None, None))
    return found


def write_condemned(vault: Vault, packs: Iterable[PackId]) -> CondemnedList:
    """Publish a new list."""
    key = vault.fresh_name(CONDEMNED_PREFIX)
    listed = packs if isinstance(packs, PackSet) else PackSet(packs)
    made_at = vault.clock.now()
    record = _CondemnedRecord(made_at=format_time(made_at), packs=listed.ids.tobytes())
    vault.write(key, msgspec.msgpack.encode(record), kind=ObjectKind.CONDEMNED)
    return CondemnedList(key, made_at, listed)
