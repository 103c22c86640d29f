"""The pool's database: rows of classes, kept consistent, ordered by generation, stored before an answer is given.

A row's fields follow the datamodel; a set of references that the datamodel computes from the other side is kept here
and never written by anyone else. Every write gets the next *generation*, which is all that the event interface needs.

Invariant: values are immutable by agreement (a changed list is a new list), so a record handed out stays as it was;
what happened inside one ``transaction`` becomes visible to events, and durable, as one, or did not happen at all.
Generations alone never go back: one that was given to a change that was taken back is not given again.
"""

from __future__ import annotations

import contextlib
import threading
import uuid as uuids
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

from holdfast.core import Entropy
from holdfast.lab.datamodel import NULL_REF, ClassTable, Datamodel
from holdfast.lab.errors import ApiFailure
from holdfast.lab.store import RowStore
from holdfast.lab.texts import check_text, cut_text
from holdfast.lab.undo import Changes, Deletion

__all__ = ["Database", "Deletion", "Fields", "Row", "new_disk_uuid", "new_uuid"]

Fields = dict[str, object]

DELETIONS_KEPT_MAX = 20_000
"""Enough for hours of backups; a client whose token is older sees wrong counts and reads everything anew."""

TRANSIENT = frozenset({"session", "task"})
"""Classes whose rows end with the process, as a pool's do with its tool stack."""


def new_uuid(entropy: Entropy) -> str:
    """Return a fresh identity, spelled as the pool does."""
    text = entropy.token_bytes(16).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_disk_uuid(entropy: Entropy) -> str:
    """Return a fresh identity as the storage manager makes them: a random uuid of RFC 4122.

    Clients that read it back from a VHD's footer may refuse any other.
    """
    return str(uuids.UUID(bytes=entropy.token_bytes(16), version=4))


@dataclass(slots=True)
class Row:
    """One object."""

    ref: str
    fields: Fields
    created: int
    modified: int


class Database:
    """All objects of one pool. Every method may be called from any thread."""

    def __init__(self, datamodel: Datamodel, store: RowStore, entropy: Entropy) -> None:
        self.datamodel = datamodel
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.deletions: deque[Deletion] = deque(maxlen=DELETIONS_KEPT_MAX)
        self._store = store
        self._entropy = entropy
        self._tables: dict[str, dict[str, Row]] = {name: {} for name in datamodel.classes}
        self._uuids: dict[str, dict[str, str]] = {name: {} for name in datamodel.classes}
        self._latest: dict[str, int] = dict.fromkeys(datamodel.classes, 0)
        self._is_closed = False
        self._depth = 0
        self._changes = Changes()
        self.generation = 0
        self.before_commit: Callable[[Iterable[tuple[str, str]]], None] | None = None
        """Hears of the objects that a transaction changed, may change more, and is not asked again about those. What
        it raises ends the transaction, which is taken back."""
        self._load()

    def _load(self) -> None:
        self.generation = self._store.generation()
        for stored in self._store.rows():
            table = self.datamodel.classes[stored.cls]
            fields = {
                name: spec.type.restore(stored.fields.get(name, spec.default)) for name, spec in table.fields.items()
            }
            self._tables[stored.cls][stored.ref] = Row(stored.ref, fields, stored.created, stored.modified)
            self._latest[stored.cls] = max(self._latest[stored.cls], stored.modified)
            self._uuids[stored.cls][str(fields["uuid"])] = stored.ref

    # -- grouping

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock; at the end of the outermost block, store what changed and wake whoever waits for events.

        An error that leaves the block takes back what the block did, also where it is inside another, whose own
        changes stay. When the outermost one cannot be stored, all of it is taken back and the error says why.
        """
        with self.lock:
            start = self._changes.position()
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._commit()
            except BaseException:
                self._changes.take_back(start)
                raise
            finally:
                self._depth -= 1

    def _commit(self) -> None:
        changes = self._changes
        if changes.touched and self.before_commit is not None:
            self.before_commit(tuple(changes.touched))
        kept, gone = [], []
        for cls, ref in changes.touched:
            if cls in TRANSIENT:
                continue
            row = self._tables[cls].get(ref)
            if row is None:
                gone.append((cls, ref))
            else:
                kept.append((cls, ref, row.created, row.modified, row.fields))
        if (kept or gone) and not self._is_closed:
            self._store.apply(kept, gone, self.generation)
        self.deletions.extend(changes.deleted)
        self._changes = Changes()
        if changes.touched:
            self.changed.notify_all()

    # -- reading

    def table(self, cls: str) -> ClassTable:
        """Return the class's datamodel."""
        return self.datamodel.classes[cls]

    def find(self, cls: str, ref: str) -> Row | None:
        """Return the row, or None when there is no such object."""
        return self._tables[cls].get(ref)

    def row(self, cls: str, ref: str) -> Row:
        """Return the row; ``HANDLE_INVALID`` when there is no such object."""
        row = self._tables[cls].get(ref)
        if row is None:
            raise ApiFailure("HANDLE_INVALID", cls, ref)
        return row

    def exists(self, cls: str, ref: str) -> bool:
        """Whether the object is there."""
        return ref in self._tables[cls]

    def rows(self, cls: str) -> list[Row]:
        """Return all rows of a class, oldest first."""
        with self.lock:
            return list(self._tables[cls].values())

    def count(self, cls: str) -> int:
        """Return how many objects a class has."""
        return len(self._tables[cls])

    def has_forgotten(self, generation: int) -> bool:
        """Whether deletions after this generation may be known no more."""
        return len(self.deletions) == DELETIONS_KEPT_MAX and self.deletions[0].deleted > generation

    def latest(self, cls: str) -> int:
        """Return the generation of the class's last change, deletions included."""
        return self._latest[cls]

    def get(self, cls: str, ref: str, name: str) -> object:
        """Return one field."""
        return self.row(cls, ref).fields[name]

    def text(self, cls: str, ref: str, name: str) -> str:
        """Return one field that is a string, a reference or an enumeration."""
        return cast(str, self.row(cls, ref).fields[name])

    def number(self, cls: str, ref: str, name: str) -> int:
        """Return one field that is a whole number."""
        return cast(int, self.row(cls, ref).fields[name])

    def flag(self, cls: str, ref: str, name: str) -> bool:
        """Return one field that is a boolean."""
        return cast(bool, self.row(cls, ref).fields[name])

    def texts(self, cls: str, ref: str, name: str) -> list[str]:
        """Return one field that is a set of strings or references. Do not change it."""
        return cast("list[str]", self.row(cls, ref).fields[name])

    def mapping(self, cls: str, ref: str, name: str) -> dict[str, str]:
        """Return one field that is a map of strings. Do not change it."""
        return cast("dict[str, str]", self.row(cls, ref).fields[name])

    def by_uuid(self, cls: str, uuid: str) -> str:
        """Return the reference of the object with this uuid; ``UUID_INVALID`` when there is none."""
        ref = self._uuids[cls].get(uuid)
        if ref is None:
            raise ApiFailure("UUID_INVALID", cls, uuid)
        return ref

    def has_uuid(self, cls: str, uuid: str) -> bool:
        """Whether an object of the class has this uuid."""
        return uuid in self._uuids[cls]

    # -- writing

    def create(self, cls: str, values: Fields, *, ref: str | None = None) -> str:
        """Add an object and return its reference; fields that are not given get the datamodel's default."""
        with self.transaction():
            table = self.datamodel.classes[cls]
            assert table.has_objects, cls
            unknown = set(values) - set(table.fields)
            assert not unknown, (cls, unknown)
            kept = {name: cut_text(value) for name, value in values.items()}
            reference = ref or f"OpaqueRef:{new_uuid(self._entropy)}"
            fields: Fields = {name: spec.default for name, spec in table.fields.items()}
            if "uuid" in fields and not kept.get("uuid"):
                kept["uuid"] = new_uuid(self._entropy)
            generation = self._next_generation(cls)
            self._changes.note(lambda: self._tables[cls].pop(reference))
            self._tables[cls][reference] = Row(reference, fields, generation, generation)
            self._touched(cls, reference)
            for name, value in kept.items():
                fields[name] = value
                self._relate(cls, reference, name, NULL_REF, value)
            self._name(cls, str(fields["uuid"]), reference)
            return reference

    def update(self, cls: str, ref: str, values: Fields) -> None:
        """Change fields of an object, as one generation. Nothing happens when they are so already."""
        with self.transaction():
            row = self.row(cls, ref)
            if values and all(row.fields[name] == value for name, value in values.items()):
                return
            for value in values.values():
                check_text(value)
            generation = self._next_generation(cls)
            for name, value in values.items():
                before = row.fields[name]
                self._put(row, name, value)
                self._relate(cls, ref, name, before, value)
            self._stamp(cls, row, generation)

    def set(self, cls: str, ref: str, name: str, value: object) -> None:
        """Change one field."""
        self.update(cls, ref, {name: value})

    def rename(self, cls: str, ref: str, uuid: str) -> None:
        """Give the object another uuid."""
        with self.transaction():
            before = str(self.row(cls, ref).fields["uuid"])
            self.set(cls, ref, "uuid", uuid)
            if self._uuids[cls].get(before) == ref:
                self._name(cls, before, None)
            self._name(cls, uuid, ref)

    def put_key(self, cls: str, ref: str, name: str, *, key: str, value: object) -> None:
        """Set one key of a map, whether it is there or not."""
        with self.transaction():
            self.set(cls, ref, name, {**self.mapping(cls, ref, name), **cast(Fields, cut_text({key: value}))})

    def drop_key(self, cls: str, ref: str, name: str, *, key: str) -> None:
        """Remove one key of a map; nothing happens when it is absent."""
        with self.transaction():
            before = self.mapping(cls, ref, name)
            self.set(cls, ref, name, {k: v for k, v in before.items() if k != key})

    def touch(self, cls: str, ref: str) -> None:
        """Give the object a new generation although nothing changed; it shows up as modified."""
        self.update(cls, ref, {})

    def destroy(self, cls: str, ref: str) -> None:
        """Remove an object. References that other objects hold to it stay and dangle, as on a real pool."""
        with self.transaction():
            row = self.row(cls, ref)
            for name, value in row.fields.items():
                self._relate(cls, ref, name, value, NULL_REF)
            generation = self._next_generation(cls)
            self._changes.note(partial(self._bring_back, cls, row))
            del self._tables[cls][ref]
            self._name(cls, str(row.fields["uuid"]), None)
            if cls not in ("session",):
                self._changes.deleted.append(Deletion(cls, ref, row.created, generation))
            self._touched(cls, ref)

    def forget_deletions(self) -> None:
        """Tell nobody any more of what was removed up to now."""
        with self.transaction():
            pending, told = list(self._changes.deleted), list(self.deletions)
            self._changes.note(partial(self._changes.deleted.__setitem__, slice(None), pending))
            self._changes.note(partial(self.deletions.extend, told))
            self._changes.deleted.clear()
            self.deletions.clear()

    def _touched(self, cls: str, ref: str) -> None:
        self._changes.touched[cls, ref] = None

    def _put(self, row: Row, name: str, value: object) -> None:
        """Set a field so that it can be taken back."""
        self._changes.note(partial(row.fields.__setitem__, name, row.fields[name]))
        row.fields[name] = value

    def _stamp(self, cls: str, row: Row, generation: int) -> None:
        """Say when the row changed last."""
        self._changes.note(partial(setattr, row, "modified", row.modified))
        row.modified = generation
        self._touched(cls, row.ref)

    def _name(self, cls: str, uuid: str, ref: str | None) -> None:
        """Let the uuid lead to the object, or to none."""
        self._changes.note(partial(self._lead, cls, uuid, self._uuids[cls].get(uuid)))
        self._lead(cls, uuid, ref)

    def _lead(self, cls: str, uuid: str, ref: str | None) -> None:
        if ref is None:
            self._uuids[cls].pop(uuid, None)
        else:
            self._uuids[cls][uuid] = ref

    def _bring_back(self, cls: str, row: Row) -> None:
        """Undo a removal; the rows of a class stand in the order in which they were made."""
        rows = sorted([*self._tables[cls].values(), row], key=lambda each: each.created)
        self._tables[cls] = {each.ref: each for each in rows}

    def _relate(self, cls: str, ref: str, name: str, before: object, after: object) -> None:
        """Keep the set on the other side of a reference field as the field says."""
        relation = self.datamodel.relations.get((cls, name))
        if relation is None or before == after:
            return
        other, set_name = relation
        for target in _targets(before):
            row = self._tables[other].get(target)
            if row is not None:
                left = [item for item in cast("list[str]", row.fields[set_name]) if item != ref]
                self._put(row, set_name, left)
                self._bump(other, row)
        for target in _targets(after):
            row = self._tables[other].get(target)
            if row is not None:
                self._put(row, set_name, [ref, *cast("list[str]", row.fields[set_name])])
                self._bump(other, row)

    def _bump(self, cls: str, row: Row) -> None:
        self._stamp(cls, row, self._next_generation(cls))

    def _next_generation(self, cls: str) -> int:
        self.generation += 1
        self._latest[cls] = self.generation
        return self.generation

    def replace(self, tables: Mapping[str, Mapping[str, Fields]]) -> None:
        """Make these the only rows of the classes named, as a restored backup does.

        Rows that stay keep their time of creation; sets that are computed from the other side are computed anew.
        """
        with self.transaction():
            self._note_all()
            for cls, rows in tables.items():
                for ref in [ref for ref in self._tables[cls] if ref not in rows]:
                    self.destroy(cls, ref)
                for ref, fields in rows.items():
                    generation = self._next_generation(cls)
                    before = self._tables[cls].get(ref)
                    created = generation if before is None else before.created
                    if before is not None:
                        self._uuids[cls].pop(str(before.fields["uuid"]), None)
                    self._tables[cls][ref] = Row(ref, dict(fields), created, generation)
                    self._uuids[cls][str(fields["uuid"])] = ref
                    self._touched(cls, ref)
            self._relate_all()

    def _note_all(self) -> None:
        """Remember every object as it is: so much is about to change that one by one would cost more."""
        rows = [(row, dict(row.fields), row.modified) for table in self._tables.values() for row in table.values()]
        tables = {cls: dict(table) for cls, table in self._tables.items()}
        uuids = {cls: dict(known) for cls, known in self._uuids.items()}

        def bring_all_back() -> None:
            for row, fields, modified in rows:
                row.fields, row.modified = fields, modified
            self._tables, self._uuids = tables, uuids

        self._changes.note(bring_all_back)

    def _relate_all(self) -> None:
        for other, set_name in set(self.datamodel.relations.values()):
            for row in self._tables[other].values():
                row.fields[set_name] = []
        for (cls, name), (other, set_name) in self.datamodel.relations.items():
            for row in self._tables[cls].values():
                for target in _targets(row.fields[name]):
                    there = self._tables[other].get(target)
                    if there is not None:
                        there.fields[set_name] = [row.ref, *cast("list[str]", there.fields[set_name])]

    def wake(self) -> None:
        """Let everybody who waits for a change look again: not only changes end a wait, time does, too."""
        with self.lock:
            self.changed.notify_all()

    def close(self) -> None:
        """Release the store. What was acknowledged is already in it; what still runs goes on in memory only."""
        with self.lock:
            self._is_closed = True
            self._store.close()


def _targets(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    return [str(value)] if value != NULL_REF else []
