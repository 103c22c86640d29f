"""Reading many map nodes with few requests: leaves that were stored together are fetched together.

Invariant: every node is authenticated and its id compared before it is handed out; one that is not what it should be
is told with its place and harms no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from holdfast.repository.crew import in_order
from holdfast.repository.damage import Damage, MapDamaged
from holdfast.repository.layout import FrameKind, PackId
from holdfast.repository.packs.disk_map import node_id
from holdfast.repository.packs.pack import OpenPack
from holdfast.repository.packs.spans import FrameSpan, spans_of
from holdfast.repository.packs.stored_disk import NodeAddress
from holdfast.repository.vault import Vault

__all__ = ["read_nodes"]


def read_nodes(
    vault: Vault, places: Iterable[NodeAddress], *, workers: int
) -> Iterator[tuple[NodeAddress, bytes | Damage]]:
    """Yield place and plain bytes of each node, pack by pack; the damage for one that cannot be read.

    The places are where nodes lie now: moves were followed before.
    """
    by_pack: dict[PackId, list[int]] = {}
    for place in places:
        by_pack.setdefault(place.pack, []).append(place.slot)
    for group in in_order(
        lambda item: _read_pack(vault, *item), sorted(by_pack.items()), workers=workers, ahead=2 * workers
    ):
        yield from group


def _read_pack(vault: Vault, pack: PackId, slots: Sequence[int]) -> list[tuple[NodeAddress, bytes | Damage]]:
    """Return the nodes of one pack; at most as many as a run stored together, so a few MiB."""
    try:
        opened = vault.shelf.open(pack)
        spans = list(spans_of(opened, slots))
    except Damage as damage:
        return [(NodeAddress(pack, slot), damage) for slot in slots]
    return [each for span in spans for each in _read_span(vault, opened, span)]


def _read_span(vault: Vault, opened: OpenPack, span: FrameSpan) -> list[tuple[NodeAddress, bytes | Damage]]:
    try:
        sealed = opened.read_range(span.offset_bytes, span.length_bytes)
    except Damage as damage:
        return [(NodeAddress(opened.pack, slot), damage) for slot in span.slots]
    found: list[tuple[NodeAddress, bytes | Damage]] = []
    for slot, frame in span.frames(opened, sealed):
        try:
            plain = opened.plain(slot, frame, kind=FrameKind.MAP)
            if node_id(vault.keys, plain) != opened.trailer.id_of(slot):
                raise MapDamaged(pack=opened.pack, slot=slot, reason="it is not the node that its trailer names")
            found.append((NodeAddress(opened.pack, slot), plain))
        except Damage as damage:
            found.append((NodeAddress(opened.pack, slot), damage))
    return found
