"""The quarantine: packs in which a verification found damage, written down so that nothing new is built on them.

Verification keeps it; writers treat a pack in it as if it were gone: none of its blocks is known any more, so the next
backup that sees their content stores it anew. Nothing is deleted, and readers do not look here: what is still whole in
such a pack is still read. Invariant: losing a note loses knowledge, never data.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec

from holdfast.core import format_time
from holdfast.repository.layout import QUARANTINE_PREFIX, ObjectKind, PackId
from holdfast.repository.lease import pack_ids, split_pack_ids
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["read_quarantine", "settle_quarantine"]


class _NoteRecord(msgspec.Struct, frozen=True, kw_only=True):
    made_at: str
    packs: bytes


def read_quarantine(vault: Vault) -> frozenset[PackId]:
    """Return all packs in quarantine. A note that cannot be read is passed over; the next verification renews it."""
    return frozenset(pack for _, packs in _notes(vault) for pack in packs)


def settle_quarantine(vault: Vault, *, checked: Set[PackId], broken: Set[PackId]) -> None:
    """Make the quarantine say what a verification found: broken packs enter, packs that were found whole leave.

    The new note is durable before the old ones go: a crash in between leaves a pack too many, never one too few.
    """
    notes = _notes(vault)
    known = frozenset(pack for _, packs in notes for pack in packs)
    wanted = (known - (checked - broken)) | broken
    if wanted == known:
        return
    if wanted:
        _write(vault, wanted)
    for key, _ in notes:
        vault.store.delete(key)


def _write(vault: Vault, packs: Iterable[PackId]) -> None:
    record = _NoteRecord(made_at=format_time(vault.clock.now()), packs=pack_ids(sorted(packs)))
    vault.write(vault.fresh_name(QUARANTINE_PREFIX), msgspec.msgpack.encode(record), kind=ObjectKind.QUARANTINE)


def _notes(vault: Vault) -> list[tuple[str, frozenset[PackId]]]:
    found = []
    for info in list(vault.names(QUARANTINE_PREFIX)):
        try:
            payload = vault.read(info.key, kind=ObjectKind.QUARANTINE)
            record = msgspec.msgpack.decode(payload, type=_NoteRecord)
            found.append((info.key, frozenset(split_pack_ids(record.packs))))
        except ObjectMissing:
            continue
        except (SealBroken, msgspec.DecodeError):
            found.append((info.key, frozenset()))
    return found
