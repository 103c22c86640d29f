"""The places where a fault of a pool can happen, by the words that name them.

Invariant: what is unknown here happens nowhere in this pool, so a fault that names it is a slip of the pen.
"""

from __future__ import annotations

from collections.abc import Container

from holdfast.lab.context import PoolCore
from holdfast.lab.datamodel import load_access

__all__ = ["learn_places"]


def learn_places(pool: PoolCore, methods: Container[str]) -> None:
    """Let the pool's faults know its calls, paths, storage repositories, disks, hosts and operations."""
    paths = tuple(door.path for door in load_access().doors if len(door.path) > 1)
    operations = {
        value for name, values in pool.db.datamodel.enums.items() if name.endswith("operations") for value in values
    }

    def knows_path(value: str) -> bool:
        return value.startswith(paths)

    def learn_objects(parameter: str, cls: str, expected: str) -> None:
        pool.faults.learn(parameter, lambda value: _is_named(pool, cls, value), expected=expected)

    pool.faults.learn(
        "method", lambda value: value in methods or knows_path(value), expected="a call such as VM.snapshot, or a path"
    )
    pool.faults.learn("path", knows_path, expected="a path of transfers such as /export_raw_vdi")
    for parameter in ("operation", "busy_with"):
        pool.faults.learn(parameter, operations.__contains__, expected="an operation such as snapshot")
    learn_objects("sr", "SR", "the name or uuid of a storage repository of this pool")
    learn_objects("disk", "VDI", "the name or uuid of a disk of this pool")
    learn_objects("host", "host", "the name or uuid of a host of this pool")


def _is_named(pool: PoolCore, cls: str, value: str) -> bool:
    return any(value in (row.ref, row.fields["uuid"], row.fields["name_label"]) for row in pool.db.rows(cls))
