"""Reading sealed records of one kind, each for itself: what is gone meanwhile is passed over, what is damaged is told.

For records that may be read one after the other; those that replace each other while somebody reads are for
``read_settled``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from holdfast.repository.layout import ObjectKind
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["each_record"]

Content = TypeVar("Content")


def each_record(
    vault: Vault, prefix: str, *, kind: ObjectKind, parse: Callable[[bytes], Content]
) -> Iterator[tuple[str, Content | None]]:
    """Yield name and content of the records below a prefix, in the order of names; None for one that is damaged.

    ``parse`` raises ``ValueError`` for what is none.
    """
    for info in list(vault.names(prefix)):
        try:
            yield info.key, parse(vault.read(info.key, kind=kind))
        except ObjectMissing:
            continue
        except (SealBroken, msgspec.DecodeError, ValueError):
            yield info.key, None
