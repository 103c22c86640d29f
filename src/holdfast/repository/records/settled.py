"""Reading records that replace each other: all of them at one moment, although others merge and remove them meanwhile.

A merged record is durable before those that it replaces go. Invariant: what is returned was all there at one moment,
so that nothing that any of the records says is missed.
"""

from __future__ import annotations

from holdfast.repository.damage import ObjectDamaged
from holdfast.repository.layout import ObjectKind
from holdfast.repository.sealing import SealBroken
from holdfast.repository.vault import Vault
from holdfast.storage import ObjectMissing

__all__ = ["read_settled"]

_ATTEMPTS_MAX = 16
"""Records change once in a collection, a few times a day; each attempt reads only what is new."""


def read_settled(vault: Vault, prefix: str, *, kind: ObjectKind) -> dict[str, bytes | SealBroken]:
    """Return the payload of every record by name, in the order of names; the reason for one that does not open."""
    known: dict[str, bytes | SealBroken] = {}
    names = _names(vault, prefix)
    for _ in range(_ATTEMPTS_MAX):
        for name in names:
            if name not in known:
                _read(vault, name, kind, known)
        listed = _names(vault, prefix)
        if listed == names and all(name in known for name in names):
            return {name: known[name] for name in names}
        names = listed
    raise ObjectDamaged(key=prefix, reason="its objects change faster than they can be read")


def _names(vault: Vault, prefix: str) -> list[str]:
    return [info.key for info in vault.names(prefix)]


def _read(vault: Vault, name: str, kind: ObjectKind, known: dict[str, bytes | SealBroken]) -> None:
    try:
        known[name] = vault.read(name, kind=kind)
    except SealBroken as broken:
        known[name] = broken
    except ObjectMissing:
        return
