"""Rows, relations, generations, and what survives a killed lab."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core import SeededEntropy, SystemEntropy
from holdfast.lab.database import Database
from holdfast.lab.datamodel import NULL_REF, DateTime, load_datamodel
from holdfast.lab.errors import ApiFailure
from holdfast.lab.store import RowStore


def _open(folder: Path) -> Database:
    return Database(load_datamodel(), RowStore(folder / "pool.db"), SystemEntropy())


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return _open(tmp_path)


def test_a_new_row_has_the_datamodels_defaults(db: Database) -> None:
    vm = db.create("VM", {"name_label": "x"})
    assert db.get("VM", vm, "start_delay") == 0
    assert db.get("VM", vm, "snapshot_of") == NULL_REF
    assert db.by_uuid("VM", db.text("VM", vm, "uuid")) == vm


def test_a_relation_follows_every_change_of_its_reference(db: Database) -> None:
    one, two = db.create("VM", {}), db.create("VM", {})
    vbd = db.create("VBD", {"VM": one})
    assert db.texts("VM", one, "VBDs") == [vbd]
    db.set("VBD", vbd, "VM", two)
    assert (db.texts("VM", one, "VBDs"), db.texts("VM", two, "VBDs")) == ([], [vbd])
    db.destroy("VBD", vbd)
    assert db.texts("VM", two, "VBDs") == []


def test_a_reference_to_what_is_gone_dangles(db: Database) -> None:
    live = db.create("VDI", {})
    snapshot = db.create("VDI", {"snapshot_of": live})
    db.destroy("VDI", live)
    assert db.get("VDI", snapshot, "snapshot_of") == live
    with pytest.raises(ApiFailure) as caught:
        db.row("VDI", live)
    assert caught.value.description == ["HANDLE_INVALID", "VDI", live]


def test_every_change_has_a_later_generation_and_no_change_has_none(db: Database) -> None:
    vm = db.create("VM", {})
    before = db.generation
    db.set("VM", vm, "name_label", "")
    assert db.generation == before
    db.set("VM", vm, "name_label", "x")
    assert db.row("VM", vm).modified == db.generation > before
    db.touch("VM", vm)
    assert db.row("VM", vm).modified == db.generation > before + 1


@pytest.mark.parametrize(
    ("name", "value", "failure"),
    [
        ("name_label", "a\x01b", "Db_exn.Invalid_value"),
        ("tags", ["a\x01b"], "Db_exn.Invalid_value"),
        ("other_config", {"k": "v\x01"}, "Db_exn.Invalid_value"),
        ("other_config", {"": "v"}, "Db_exn.Empty_key_in_map"),
    ],
)
def test_what_the_database_cannot_hold_is_refused_and_changes_nothing(
    db: Database, name: str, value: object, failure: str
) -> None:
    vm = db.create("VM", {})
    before = db.get("VM", vm, name)
    with pytest.raises(ApiFailure) as caught:
        db.set("VM", vm, name, value)
    assert caught.value.description == ["INTERNAL_ERROR", failure]
    assert db.get("VM", vm, name) == before


def test_a_new_object_and_a_new_key_end_before_what_the_database_cannot_hold(db: Database) -> None:
    vm = db.create("VM", {"name_label": "a\x01b", "tags": ["c\x02"], "name_description": "\t\r\n\u00e9"})
    db.put_key("VM", vm, "other_config", key="d\x03", value="e\x04f")
    assert db.text("VM", vm, "name_label") == "a"
    assert db.text("VM", vm, "name_description") == "\t\r\n\u00e9"
    assert db.texts("VM", vm, "tags") == ["c"]
    assert db.mapping("VM", vm, "other_config") == {"d": "e"}
    with pytest.raises(ApiFailure):
        db.put_key("VM", vm, "other_config", key="", value="x")


def test_a_record_handed_out_stays_as_it_was(db: Database) -> None:
    vm = db.create("VM", {"other_config": {"a": "1"}})
    seen = db.mapping("VM", vm, "other_config")
    db.put_key("VM", vm, "other_config", key="b", value="2")
    db.drop_key("VM", vm, "other_config", key="a")
    assert seen == {"a": "1"}
    assert db.mapping("VM", vm, "other_config") == {"b": "2"}


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    first = _open(tmp_path)
    vm = first.create(
        "VM", {"name_label": "é", "snapshot_time": DateTime("20260101T00:00:00Z"), "HVM_shadow_multiplier": 1.0}
    )
    vbd = first.create("VBD", {"VM": vm})
    gone = first.create("VM", {})
    first.destroy("VM", gone)
    first.create("session", {})
    second = _open(tmp_path)  # the first was never closed
    assert second.get("VM", vm, "name_label") == "é"
    assert isinstance(second.get("VM", vm, "snapshot_time"), DateTime)
    assert second.texts("VM", vm, "VBDs") == [vbd]
    assert not second.exists("VM", gone)
    assert second.count("session") == 0
    assert second.generation >= second.row("VM", vm).modified


class _Refused(Exception):
    """What ends a transaction in these tests."""


def _picture(db: Database) -> dict[str, object]:
    """Return everything that a client could see."""
    rows = {cls: [(row.ref, dict(row.fields), row.created, row.modified) for row in db.rows(cls)] for cls in CLASSES}
    return {"rows": rows, "deletions": list(db.deletions)}


CLASSES = ("VM", "VBD", "task")


def test_a_transaction_that_ends_in_an_error_did_not_happen(tmp_path: Path) -> None:
    db = _open(tmp_path)
    one, two = db.create("VM", {"name_label": "one"}), db.create("VM", {"name_label": "two"})
    vbd = db.create("VBD", {"VM": one})
    uuid = db.text("VM", one, "uuid")
    before, generation = _picture(db), db.generation
    with pytest.raises(_Refused), db.transaction():
        db.update("VM", two, {"name_label": "2", "tags": ["x"]})
        db.set("VBD", vbd, "VM", two)
        made = db.create("VBD", {"VM": one})
        db.destroy("VM", one)
        db.rename("VM", two, "another")
        db.create("task", {})
        db.destroy("VBD", made)
        raise _Refused
    assert _picture(db) == before
    assert db.by_uuid("VM", uuid) == one and not db.has_uuid("VM", "another")
    assert db.generation > generation
    db.set("VM", two, "name_label", "later")
    assert _picture(_open(tmp_path))["rows"] == _picture(db)["rows"]


def test_an_inner_transaction_that_fails_leaves_the_outer_ones_changes(db: Database) -> None:
    vm = db.create("VM", {})
    with db.transaction():
        db.set("VM", vm, "name_label", "outer")
        with pytest.raises(_Refused), db.transaction():
            db.set("VM", vm, "name_label", "inner")
            db.destroy("VM", vm)
            raise _Refused
        assert db.text("VM", vm, "name_label") == "outer"
    assert db.text("VM", vm, "name_label") == "outer"


def test_a_change_that_cannot_be_stored_did_not_happen_and_the_next_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RowStore(tmp_path / "pool.db")
    db = Database(load_datamodel(), store, SystemEntropy())
    vm = db.create("VM", {"name_label": "before"})
    before = _picture(db)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "apply", full)
        with pytest.raises(sqlite3.OperationalError):
            db.set("VM", vm, "name_label", "lost")
        with pytest.raises(sqlite3.OperationalError):
            db.destroy("VM", vm)
    assert _picture(db) == before
    db.set("VM", vm, "name_description", "after")
    reopened = _open(tmp_path)
    assert (reopened.text("VM", vm, "name_label"), reopened.text("VM", vm, "name_description")) == ("before", "after")


def test_an_error_while_consequences_are_told_keeps_nothing_from_being_stored_later(tmp_path: Path) -> None:
    db = _open(tmp_path)
    vm = db.create("VM", {})

    def fail(changed: Iterable[tuple[str, str]]) -> None:
        db.touch(*next(iter(changed)))
        raise _Refused

    db.before_commit = fail
    with pytest.raises(_Refused):
        db.set("VM", vm, "name_label", "refused")
    db.before_commit = None
    assert db.text("VM", vm, "name_label") == ""
    db.set("VM", vm, "name_description", "kept")
    assert _open(tmp_path).text("VM", vm, "name_description") == "kept"


def test_a_restored_backup_that_fails_leaves_everything_as_it_was(db: Database) -> None:
    vm = db.create("VM", {"name_label": "kept"})
    db.create("VBD", {"VM": vm})
    before = _picture(db)
    with pytest.raises(_Refused), db.transaction():
        db.replace({"VM": {}, "VBD": {}})
        db.create("VM", {})
        raise _Refused
    assert _picture(db) == before
    assert db.by_uuid("VM", db.text("VM", vm, "uuid")) == vm


def test_forgotten_deletions_come_back_with_the_rest(db: Database) -> None:
    db.destroy("VM", db.create("VM", {}))
    before = _picture(db)
    with pytest.raises(_Refused), db.transaction():
        db.destroy("VM", db.create("VM", {}))
        db.forget_deletions()
        db.destroy("VM", db.create("VM", {}))
        raise _Refused
    assert _picture(db) == before
    db.forget_deletions()
    assert not db.deletions


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("cudr"), st.integers(0, 5), st.integers(0, 5)), max_size=40), st.integers())
def test_sets_always_say_what_references_say(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], seed: int
) -> None:
    store = RowStore(tmp_path_factory.mktemp("db") / "pool.db")
    db = Database(load_datamodel(), store, SeededEntropy(seed))
    vms, vbds = [db.create("VM", {}) for _ in range(6)], []
    for action, first, second in steps:
        if action == "c":
            vbds.append(db.create("VBD", {"VM": vms[first]}))
        elif vbds and action == "u":
            db.set("VBD", vbds[first % len(vbds)], "VM", vms[second])
        elif vbds and action == "d":
            db.destroy("VBD", vbds.pop(first % len(vbds)))
        elif action == "r" and vbds:
            db.set("VBD", vbds[first % len(vbds)], "VM", NULL_REF)
    for vm in vms:
        assert set(db.texts("VM", vm, "VBDs")) == {vbd for vbd in vbds if db.text("VBD", vbd, "VM") == vm}
    db.close()
