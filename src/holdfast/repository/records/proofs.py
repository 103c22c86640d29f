"""Proofs: when each pack was last read and found whole, or its damage told to the quarantine.

Scrub and verification write them; scrub reads what was not read for the longest time; a restore point's grade follows
from the oldest proof among its packs. Invariant: a proof is stored after the last byte of its pack was read, and after
the quarantine knows what was damaged in it. Losing proofs costs reading, never data.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from holdfast.core import from_msgpack
from holdfast.repository.layout import PROOF_ROW, PROOFS_PREFIX, ObjectKind, PackId
from holdfast.repository.records.sealed import each_record
from holdfast.repository.vault import Vault

__all__ = ["ProofWriter", "Proofs", "read_proofs"]

_AHEAD_S_MAX = 24 * 60 * 60
"""A proof from further in the future was made by a clock that was wrong, and says nothing."""

_PACKS_PER_OBJECT = 8
"""How many packs a killed scrub reads again, besides those that were being read: half a GiB."""

_OBJECT_AGE_S_MAX = 60.0
"""What a slow scrub loses at most when it is killed: a minute of reading."""

_ROWS_PER_SESSION_OBJECT_MAX = 1024
"""An object that grows with a scrub is written anew each time: at most 28 KB."""

_OBJECTS_MAX = 64
"""More than this are merged: whoever looks for proofs reads them all."""

_ROWS_PER_MERGED_OBJECT_MAX = 262_144
"""7 MB, 16 TB of packs: an object that is still one quick get."""

Rows = npt.NDArray[Any]


class _ProofRecord(msgspec.Struct, frozen=True, kw_only=True):
    rows: bytes


class Proofs:
    """The latest proof of every pack as of when they were read. A value; 28 bytes for each pack."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def checked_s(self, packs: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
        """Return for each pack id (16 bytes) when it was last checked, in seconds since 1970; 0 for never."""
        times = np.zeros(len(packs), dtype=np.int64)
        if len(self._rows) and len(packs):
            at = np.minimum(np.searchsorted(self._rows["pack"], packs), len(self._rows) - 1)
            found = self._rows["pack"][at] == packs
            times[found] = self._rows["checked_s"][at[found]].astype(np.int64)
        return times

    def __len__(self) -> int:
        return len(self._rows)


def read_proofs(vault: Vault) -> Proofs:
    """Return all proofs. An object that cannot be read is passed over: its packs are read again."""
    rows, _ = _read_all(vault)
    return Proofs(rows)


class ProofWriter:
    """Collects the proofs of one scrub or verification, and stores them now and then. Used from one thread."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._rows: list[tuple[PackId, int, int]] = []
        self._stored_rows = 0
        self._stored_key: str | None = None
        self._stored_s = vault.clock.monotonic_s()

    def add(self, pack: PackId, *, length_bytes: int, began_s: int) -> None:
        """Note that a pack was read whole; what was damaged in it is in quarantine."""
        self._rows.append((pack, length_bytes, began_s))

    @property
    def is_due(self) -> bool:
        """Whether enough was read since the last object was stored."""
        waiting = len(self._rows) - self._stored_rows
        age_s = self._vault.clock.monotonic_s() - self._stored_s
        return waiting >= _PACKS_PER_OBJECT or (waiting > 0 and age_s >= _OBJECT_AGE_S_MAX)

    def store(self) -> None:
        """Store what was noted; an object of this writer that says less goes afterwards."""
        if len(self._rows) == self._stored_rows:
            return
        before = self._stored_key
        self._stored_key = _write(self._vault, _latest(np.array(self._rows, dtype=PROOF_ROW)))
        self._stored_rows, self._stored_s = len(self._rows), self._vault.clock.monotonic_s()
        if before is not None:
            self._vault.store.delete(before)
        if len(self._rows) >= _ROWS_PER_SESSION_OBJECT_MAX:
            self._rows, self._stored_rows, self._stored_key = [], 0, None

    def close(self, *, present: npt.NDArray[np.void] | None = None) -> None:
        """Store the rest, and merge what became too many objects; ``present`` tells which packs the store has."""
        self.store()
        _merge(self._vault, present)


def _merge(vault: Vault, present: npt.NDArray[np.void] | None) -> None:
    """Write the latest proofs anew in few objects, when there are many; then delete those that were read."""
    if sum(1 for _ in vault.names(PROOFS_PREFIX)) <= _OBJECTS_MAX:
        return
    rows, keys = _read_all(vault)
    if present is not None:
        rows = rows[np.isin(rows["pack"], present)]
    for first in range(0, len(rows), _ROWS_PER_MERGED_OBJECT_MAX):
        _write(vault, rows[first : first + _ROWS_PER_MERGED_OBJECT_MAX])
    for key in keys:
        vault.store.delete(key)


def _read_all(vault: Vault) -> tuple[Rows, list[str]]:
    """Return the latest row of every pack, and the objects that were looked at, damaged ones too."""
    keys = []
    rows = [np.zeros(0, dtype=PROOF_ROW)]
    for key, found in each_record(vault, PROOFS_PREFIX, kind=ObjectKind.PROOF, parse=_parse):
        keys.append(key)
        if found is not None:
            rows.append(found)
    together = np.concatenate(rows)
    # The pieces are as large as the whole.
    rows.clear()
    believed = together["checked_s"] <= int(vault.clock.now().timestamp()) + _AHEAD_S_MAX
    return _latest(together if believed.all() else together[believed]), keys


def _parse(payload: bytes) -> Rows:
    return np.frombuffer(from_msgpack(payload, _ProofRecord).rows, dtype=PROOF_ROW)


def _latest(rows: Rows) -> Rows:
    """Return the latest row of each pack, ascending by pack."""
    newest_first = np.argsort(rows["checked_s"], kind="stable")[::-1]
    _, first = np.unique(rows["pack"][newest_first], return_index=True)
    latest: Rows = rows[newest_first[first]]
    return latest


def _write(vault: Vault, rows: Rows) -> str:
    key = vault.fresh_name(PROOFS_PREFIX)
    vault.write(key, msgspec.msgpack.encode(_ProofRecord(rows=rows.tobytes())), kind=ObjectKind.PROOF)
    return key
