"""Our mark on objects of the pool is set, found and removed, against other clients too."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.xapi import KeyTaken, TaggedKind
from holdfast.xapi.tags import find_tagged, tag, untag
from tests.unit.xapi.fake_pool import FakePool, Refusal, fake_pool, logged_in


class Disk:
    """One disk's ``other_config``, as XAPI keeps it."""

    def __init__(self, pool: FakePool) -> None:
        self.config: dict[str, str] = {"theirs": "x"}
        self.taken_by: list[str] = []
        """What another client sets right before us, one for each attempt."""
        pool.methods |= {
            "VDI.get_by_uuid": self._by_uuid,
            "VDI.get_record": lambda *_: self._record(),
            "VDI.remove_from_other_config": lambda _session, _ref, key: str(self.config.pop(key, "")),
            "VDI.add_to_other_config": self._add,
            "VDI.get_all_records": lambda _session: {"OpaqueRef:d": self._record()},
        }
        for kind in ("VM", "VBD", "task"):
            pool.methods[f"{kind}.get_all_records"] = lambda _session: {}

    def _record(self) -> dict[str, Any]:
        return {"uuid": "disk", "name_label": "root", "other_config": dict(self.config), "is_a_snapshot": True}

    def _by_uuid(self, _session: str, uuid: str) -> str:
        if uuid != "disk":
            raise Refusal("UUID_INVALID", "VDI", uuid)
        return "OpaqueRef:d"

    def _add(self, _session: str, ref: str, key: str, value: str) -> str:
        if self.taken_by:
            self.config[key] = self.taken_by.pop(0)
        if key in self.config:
            raise Refusal("MAP_DUPLICATE_KEY", "VDI", "other_config", ref, key)
        self.config[key] = value
        return ""


def test_a_tag_is_set_replaced_and_set_twice() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        disk = Disk(pool)
        for value in ("run-1", "run-2", "run-2"):
            tag(calls, TaggedKind.DISK, "disk", "holdfast:run", value)
            assert disk.config == {"theirs": "x", "holdfast:run": value}


def test_a_client_that_sets_the_key_at_the_same_moment_is_overruled_or_told() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        disk = Disk(pool)
        disk.taken_by = ["other"]
        tag(calls, TaggedKind.DISK, "disk", "holdfast:run", "ours")
        assert disk.config["holdfast:run"] == "ours"
        disk.taken_by = ["other"] * 3
        with pytest.raises(KeyTaken):
            tag(calls, TaggedKind.DISK, "disk", "holdfast:run", "again")


def test_what_is_tagged_is_found_with_its_value() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        disk = Disk(pool)
        assert find_tagged(calls, "holdfast:run") == []
        disk.config["holdfast:run"] = "r-1"
        (found,) = find_tagged(calls, "holdfast:run")
        assert (found.kind, found.uuid, found.name, found.value) == (TaggedKind.DISK, "disk", "root", "r-1")
        assert found.is_snapshot


def test_removing_a_tag_is_fine_twice_and_of_an_object_that_is_gone() -> None:
    with fake_pool() as pool, logged_in(pool) as calls:
        disk = Disk(pool)
        untag(calls, TaggedKind.DISK, "disk", "theirs")
        untag(calls, TaggedKind.DISK, "disk", "theirs")
        untag(calls, TaggedKind.DISK, "gone", "theirs")
        assert disk.config == {}
