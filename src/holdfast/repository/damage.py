"""What is damaged, missing or foreign in a repository: one class per cause, each naming the object it found so.

Every reader raises one of these instead of returning bytes that it could not prove.
"""

from __future__ import annotations

from holdfast.core import ExitStatus, HoldfastError
from holdfast.repository.layout import PackId, pack_key

__all__ = ["MISSING", "Damage", "MapDamaged", "ObjectDamaged", "PackDamaged", "PackMissing", "PointDamaged"]

MISSING = "it is missing"
"""The reason that is told of a pack that is not in the store. Compared, too: one that nobody needs is no damage."""


class Damage(HoldfastError):
    """Something stored is not what was written; raised only as one of its subclasses."""

    code = "repository.damage"
    exit_status = ExitStatus.DAMAGED
    effect = "What was asked for cannot be read whole; restore points that do not use this object are not concerned."
    advice = (
        "Run 'holdfast point verify': it names the restore points that are hit, keeps later backups from building on "
        "the damage, and heals what is stored elsewhere too; 'holdfast repository heal' takes more from a mirror or an "
        "image of the disk."
    )


class PackDamaged(Damage):
    """A pack holds something else than what was written there."""

    code = "repository.pack-damaged"

    def __init__(self, *, pack: PackId, slot: int | None, reason: str) -> None:
        where = "" if slot is None else f", slot {slot}"
        super().__init__(f"object {pack_key(pack)}{where}: {reason}")
        self.object, self.slot, self.reason = pack_key(pack), slot, reason
        self._pack = pack

    @property
    def pack(self) -> PackId:
        """The damaged pack."""
        return self._pack


class PackMissing(Damage):
    """A pack that a restore point needs is not in the store."""

    code = "repository.pack-missing"
    advice = (
        "If part of the store was not copied or not mounted, bring it back; otherwise run 'holdfast point verify' "
        "to learn which restore points are hit."
    )

    def __init__(self, *, pack: PackId) -> None:
        super().__init__(f"object {pack_key(pack)} is missing")
        self.object = pack_key(pack)
        self._pack = pack

    @property
    def pack(self) -> PackId:
        """The missing pack."""
        return self._pack


class MapDamaged(Damage):
    """A disk map decrypts but does not make sense: it was written wrongly."""

    code = "repository.map-damaged"
    advice = "Please report this with the output of 'holdfast point verify --json'; the other points are usable."

    def __init__(self, *, pack: PackId, slot: int, reason: str) -> None:
        super().__init__(f"disk map in object {pack_key(pack)}, slot {slot}: {reason}")
        self.object, self.slot, self.reason = pack_key(pack), slot, reason


class PointDamaged(Damage):
    """A restore point's own object is not what was written."""

    code = "repository.point-damaged"
    effect = "This restore point cannot be used; all others are not concerned."
    advice = "Bring the object back from a copy of the repository, or delete it there and use another restore point."

    def __init__(self, *, key: str, reason: str) -> None:
        super().__init__(f"object {key}: {reason}")
        self.object, self.reason = key, reason


class ObjectDamaged(Damage):
    """An object that only helps (a lease, an index, a list) is not what was written."""

    code = "repository.object-damaged"
    effect = "No restore point depends on this object."
    advice = "Make sure that no backup is running, then delete this object from the store."

    def __init__(self, *, key: str, reason: str) -> None:
        super().__init__(f"object {key}: {reason}")
        self.object, self.reason = key, reason
