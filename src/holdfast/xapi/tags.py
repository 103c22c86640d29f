"""Our mark on what we create: a key in ``other_config``, set, removed, and found again by the sweep.

Invariant: setting is safe twice, and against somebody else setting the same key in between.
"""

from __future__ import annotations

import contextlib

from holdfast.core import HoldfastError
from holdfast.xapi.calls import Calls
from holdfast.xapi.catalogue import KeyTaken, ObjectGone
from holdfast.xapi.records import flag, strings, text
from holdfast.xapi.values import Tagged, TaggedKind

__all__ = ["find_tagged", "tag", "untag"]

_ATTEMPTS_MAX = 3
"""Remove and add are two calls; another client may add between them."""


def tag(calls: Calls, kind: TaggedKind, uuid: str, key: str, value: str) -> None:
    """Set ``other_config[key]``; ``ObjectGone`` when the object is gone."""
    ref = calls.ref(kind.value, uuid)
    failure: HoldfastError | None = None
    for _ in range(_ATTEMPTS_MAX):
        if strings(calls.record(kind.value, ref), "other_config").get(key) == value:
            return
        calls.call(f"{kind.value}.remove_from_other_config", ref, key)
        try:
            calls.call(f"{kind.value}.add_to_other_config", ref, key, value)
            return
        except KeyTaken as taken:
            failure = taken
    assert failure is not None
    raise failure


def untag(calls: Calls, kind: TaggedKind, uuid: str, key: str) -> None:
    """Remove ``other_config[key]``; a key or an object that is not there is fine."""
    ref = calls.try_ref(kind.value, uuid)
    if ref is not None:
        with contextlib.suppress(ObjectGone):
            calls.call(f"{kind.value}.remove_from_other_config", ref, key)


def find_tagged(calls: Calls, key: str) -> list[Tagged]:
    """Return everything that carries the key, VMs first: a snapshot VM goes before its disks."""
    found: list[Tagged] = []
    for kind in TaggedKind:
        for record in calls.table(kind.value).values():
            value = strings(record, "other_config").get(key)
            if value is not None:
                found.append(
                    Tagged(
                        kind=kind,
                        uuid=text(record, "uuid"),
                        name=text(record, "name_label", ""),
                        value=value,
                        is_snapshot=flag(record, "is_a_snapshot", False),
                    )
                )
    return found
