"""Known blocks: finds where the repository already holds a block, in bounded memory.

Samples lead to packs; the trailers of the packs that were hit, and of their neighbours, are kept in one table of block
ids. Invariant: an entry is returned only for a pack that is in the store, is not condemned, and whose trailer was
proven under this run's lease; so garbage collection cannot take it before the run has ended.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from holdfast.core import get_log
from holdfast.repository import layout
from holdfast.repository.damage import Damage
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.packs.entries import PackNumbers, entry_of, place_of
from holdfast.repository.packs.index import IndexHead, list_index_heads, sample_rows
from holdfast.repository.packs.trailer import Trailer
from holdfast.repository.records.avoided import NOTHING_AVOIDED, AvoidedSlots
from holdfast.repository.vault import Vault

__all__ = ["KNOWN_BLOCKS_MAX", "KnownBlocks"]

KNOWN_BLOCKS_MAX = 131_072
"""About 26 MB: the blocks of some 50 packs."""

_OWN_SAMPLES_MAX = 131_072
"""About 13 MB: the samples of 0.5 TB that one run writes. Older ones are found again once the run has its index."""

_SAMPLES_FOLLOWED_MAX = 4
"""A block can lie in several packs when some were condemned or damaged; more than a few copies means neither."""

_log = get_log(__name__)


class KnownBlocks:
    """What a run may refer to instead of storing it again. Thread-safe."""

    def __init__(
        self,
        vault: Vault,
        numbers: PackNumbers,
        *,
        may_use: Callable[[PackId], bool],
        avoided: AvoidedSlots = NOTHING_AVOIDED,
        blocks_max: int = KNOWN_BLOCKS_MAX,
    ) -> None:
        self._vault = vault
        self._numbers = numbers
        self._may_use = may_use
        self._avoided = avoided
        self._blocks_max = blocks_max
        self._lock = threading.Lock()
        self._table: dict[bytes, int] = {}
        self._loaded: OrderedDict[int, list[bytes]] = OrderedDict()
        self._next: dict[int, int] = {}
        self._refused: set[int] = set()
        self._own_samples: dict[int, int] = {}
        self._stored_samples: tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]] | None = None

    def find(self, ids: Sequence[bytes]) -> list[int | None]:
        """Return for each block id an entry that holds it, or None."""
        with self._lock:
            for id in self._sampled(ids):
                self._follow(id)
            return [self._table.get(id) for id in ids]

    def add(self, number: int, trailer: Trailer) -> None:
        """Make the blocks of a pack known: one that this run wrote, or that an interrupted one left."""
        with self._lock:
            for prefix in sample_rows(trailer.rows, number)["prefix"].tolist():
                self._own_samples[prefix] = number
            while len(self._own_samples) > _OWN_SAMPLES_MAX:
                del self._own_samples[next(iter(self._own_samples))]
            self._load(number, trailer)

    def chain(self, packs: Iterable[PackId]) -> None:
        """Tell which packs were written one after the other."""
        with self._lock:
            self._chain([self._numbers.number(pack) for pack in packs])

    def _chain(self, numbers: Sequence[int]) -> None:
        self._next.update(itertools.pairwise(numbers))

    def _sampled(self, ids: Sequence[bytes]) -> list[bytes]:
        """Return those of the ids that are sampled in some pack, or would be in a large one."""
        if not ids:
            return []
        prefixes, _ = self._samples()
        wanted = np.array([int.from_bytes(id[:8], "little") for id in ids], dtype=np.uint64)
        at = np.searchsorted(prefixes, wanted)
        is_stored = at < len(prefixes)
        is_stored[is_stored] = prefixes[at[is_stored]] == wanted[is_stored]
        return [
            id
            for id, prefix, stored in zip(ids, wanted.tolist(), is_stored.tolist(), strict=True)
            if stored or prefix in self._own_samples or id[0] & layout.SAMPLE_MASK == 0
        ]

    def _follow(self, id: bytes) -> None:
        """Load what a sampled block leads to: its pack unless it is known, and the pack that was written next."""
        entry = self._table.get(id)
        if entry is None:
            self._follow_samples(id)
        else:
            self._load_with_follower(place_of(entry)[0])

    def _follow_samples(self, id: bytes) -> None:
        """Load the packs that samples of this block lead to, until it is known."""
        prefix = int.from_bytes(id[:8], "little")
        own = self._own_samples.get(prefix)
        if own is not None:
            self._load_with_follower(own)
        prefixes, numbers = self._samples()
        first = int(np.searchsorted(prefixes, np.uint64(prefix)))
        for at in range(first, min(first + _SAMPLES_FOLLOWED_MAX, len(prefixes))):
            if id in self._table or int(prefixes[at]) != prefix:
                return
            self._load_with_follower(int(numbers[at]))

    def _load_with_follower(self, number: int) -> None:
        self._load_pack(number)
        follower = self._next.get(number)
        if follower is not None:
            self._load_pack(follower)

    def _load_pack(self, number: int) -> None:
        if number in self._loaded:
            self._loaded.move_to_end(number)
            return
        pack = self._numbers.pack(number)
        if number in self._refused or not self._may_use(pack):
            return
        try:
            self._load(number, self._vault.shelf.open(pack).trailer)
        except Damage as damage:
            # Not knowing a block only costs space; verification is what reports the damage.
            self._refused.add(number)
            _log.warning("known.pack-skipped", reason=str(damage))

    def _load(self, number: int, trailer: Trailer) -> None:
        rows = trailer.rows
        ids: list[bytes] = rows["id"].tolist()
        shares: list[int] = trailer.shares(np.arange(len(rows))).tolist()
        is_block: list[bool] = (rows["kind"] == FrameKind.DATA).tolist()
        for slot in self._avoided.of_pack(trailer.pack):
            is_block[slot] = False
        kept = [id for id, block in zip(ids, is_block, strict=True) if block]
        for slot, (id, share_bytes) in enumerate(zip(ids, shares, strict=True)):
            if is_block[slot]:
                self._table[id] = entry_of(number, slot, share_bytes)
        self._loaded[number] = kept
        while len(self._table) > self._blocks_max and len(self._loaded) > 1:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        number, ids = self._loaded.popitem(last=False)
        low, high = entry_of(number, 0, 0), entry_of(number + 1, 0, 0)
        for id in ids:
            if low <= self._table.get(id, -1) < high:
                del self._table[id]

    def _samples(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        """Return all samples of the repository's indexes, sorted; they are read when the first new block is seen."""
        if self._stored_samples is None:
            heads, damaged = list_index_heads(self._vault)
            for key in damaged:
                _log.warning("known.index-skipped", object=key)
            self._stored_samples = self._sort_samples(heads)
        return self._stored_samples

    def _sort_samples(self, heads: Sequence[IndexHead]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        prefixes = [np.zeros(0, dtype=np.uint64)]
        packs = [np.zeros(0, dtype=np.uint32)]
        for head in heads:
            numbers = [self._numbers.number(pack) for pack in head.pack_ids()]
            for number, length_bytes in zip(numbers, head.packs["length"].tolist(), strict=True):
                self._numbers.set_length(number, length_bytes)
            self._chain(numbers)
            prefixes.append(head.samples["prefix"].astype(np.uint64))
            packs.append(np.array(numbers, dtype=np.uint32)[head.samples["pack"]])
        prefix, pack = np.concatenate(prefixes), np.concatenate(packs)
        order = np.argsort(prefix, kind="stable")
        return prefix[order], pack[order]
