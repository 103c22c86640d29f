"""Condemned lists: packs that garbage collection means to delete. A writer that can see one keeps clear of its packs.

Invariant: a pack is deleted only while a condemned list that names it is in the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from holdfast.core import format_time, from_msgpack, parse_time
from holdfast.repository.layout import CONDEMNED_PREFIX, ObjectKind, PackId
from holdfast.repository.packs.pack_set import PackSet, as_ids
from holdfast.repository.records.elapsed import Elapsed
from holdfast.repository.records.sealed import each_record
from holdfast.repository.safety import Safety
from holdfast.repository.vault import Vault, stamped_at

__all__ = ["CondemnedList", "list_condemned", "write_condemned"]


class _CondemnedRecord(msgspec.Struct, frozen=True, kw_only=True):
    made_at: str
    packs: bytes


@dataclass(frozen=True, slots=True)
class CondemnedList:
    """A list as it was found. ``packs`` is None when it cannot be read: then any pack may be meant."""

    key: str
    made_at: datetime | None
    """By its name when it cannot be read; None when that tells no time either."""
    packs: PackSet | None

    def is_abandoned(self, elapsed: Elapsed, safety: Safety) -> bool:
        """Return whether its collector has certainly stopped deleting.

        Its collector knows what it wrote, so a list that cannot be read, by us or by anybody, stands as long as others.
        A name that no collector can have given, because it tells no time or one to come, stands for nobody.
        """
        lasts, margin = timedelta(seconds=safety.collection_s), timedelta(seconds=safety.clock_skew_s)
        tells_time = self.made_at is not None and (
            self.packs is not None or self.made_at - elapsed.now < lasts + margin
        )
        ends_at = self.made_at + lasts if self.made_at is not None and tells_time else None
        return elapsed.is_over(ends_at, key=self.key, lasts=lasts, margin=margin)


def list_condemned(vault: Vault) -> list[CondemnedList]:
    """Return all lists there are, oldest first."""
    found = each_record(vault, CONDEMNED_PREFIX, kind=ObjectKind.CONDEMNED, parse=_parse)
    return [CondemnedList(key, *(content or (stamped_at(key), None))) for key, content in found]


def write_condemned(vault: Vault, packs: Iterable[PackId]) -> CondemnedList:
    """Publish a new list."""
    key = vault.fresh_name(CONDEMNED_PREFIX)
    listed = packs if isinstance(packs, PackSet) else PackSet(packs)
    made_at = vault.clock.now()
    record = _CondemnedRecord(made_at=format_time(made_at), packs=listed.ids.tobytes())
    vault.write(key, msgspec.msgpack.encode(record), kind=ObjectKind.CONDEMNED)
    return CondemnedList(key, made_at, listed)


def _parse(payload: bytes) -> tuple[datetime, PackSet]:
    record = from_msgpack(payload, _CondemnedRecord)
    return parse_time(record.made_at), PackSet(as_ids(record.packs))
