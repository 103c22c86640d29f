"""What an import works with: the file, the wishes, and what became of each of the file's objects.

Objects are made class by class, the ones that others refer to first. Every step that adds something to the pool
notes how it is undone. Invariant: a failed import that was not forced leaves nothing behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from holdfast.core import get_log
from holdfast.lab.context import Context
from holdfast.lab.database import Fields
from holdfast.lab.datamodel import NULL_REF
from holdfast.lab.errors import ApiFailure, internal_failure
from holdfast.lab.handlers.ova_document import OvaObject

__all__ = ["Import", "ImportWishes"]

log = get_log(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportWishes:
    """How a file shall be imported."""

    sr: str | None
    """Where disks are made; None when only the description comes and the disks are there already."""
    keeps_identity: bool = False
    is_forced: bool = False
    is_dry: bool = False
    is_live: bool = False
    checks_cpu: bool = False
    disks: dict[str, str] = field(default_factory=dict)
    """Which disk of the pool takes the place of which one of the file, both by uuid or SCSI id."""


@dataclass(slots=True)
class Import:
    """One import."""

    context: Context
    wishes: ImportWishes
    objects: list[OvaObject]
    refs: dict[str, str] = field(default_factory=dict)
    """What each name of the file is in the pool."""
    handled: list[tuple[str, str]] = field(default_factory=list)
    """Class and reference of everything that was found or made, the first one first."""
    vms: list[str] = field(default_factory=list)
    """The VMs of the file in the pool, newest first."""
    _undo: list[Callable[[], object]] = field(default_factory=list)
    _parsed: dict[tuple[str, str], Fields] = field(default_factory=dict)

    def of(self, cls: str) -> list[OvaObject]:
        """Return the file's objects of one class."""
        return [each for each in self.objects if each.cls == cls]

    def found(self, each: OvaObject, ref: str) -> None:
        """Note what an object of the file is in the pool."""
        self.refs[each.id] = ref
        self.handled.append((each.cls, ref))

    def dreamt(self, each: OvaObject) -> None:
        """Note that an object would have been made if this were no rehearsal."""
        self.refs[each.id] = f"OpaqueRef:{self.context.pool.new_uuid()}"

    def made(self, each: OvaObject, ref: str, undo: Callable[[], object]) -> None:
        """Note an object that was added to the pool, and how it is removed."""
        self._undo.append(undo)
        self.found(each, ref)

    def has(self, name: object) -> bool:
        """Whether something in the pool stands for a name of the file."""
        return str(name) in self.refs

    def ref(self, name: object) -> str:
        """Return what stands for a name of the file; ``IMPORT_ERROR_FAILED_TO_FIND_OBJECT`` otherwise."""
        if str(name) not in self.refs:
            raise ApiFailure("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", str(name))
        return self.refs[str(name)]

    def ref_or_null(self, name: object) -> str:
        """Return what stands for a name of the file, or null."""
        return self.refs.get(str(name), NULL_REF)

    def in_file(self, name: object) -> OvaObject:
        """Return the file's object with this name; ``IMPORT_ERROR_FAILED_TO_FIND_OBJECT`` when there is none."""
        for each in self.objects:
            if each.id == str(name):
                return each
        raise ApiFailure("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", str(name))

    def fields(self, each: OvaObject, *, cls: str | None = None) -> Fields:
        """Return an object's fields as the datamodel has them; the pool's own exception when one does not convert."""
        wanted = cls or each.cls
        key = (wanted, each.id)
        if key not in self._parsed:
            self._parsed[key] = self._parse(each, wanted)
        return dict(self._parsed[key])

    def _parse(self, each: OvaObject, cls: str) -> Fields:
        if not isinstance(each.record, dict):
            raise internal_failure("Expected Dictionary")
        given = cast(Fields, each.record)
        datamodel = self.context.db.datamodel
        fields: Fields = {}
        # From the last field to the first: it decides which of several faults a client hears about.
        for name, spec in reversed(datamodel.classes[cls].fields.items()):
            if name in given:
                fields[name] = spec.type.accept(given[name], datamodel.enums)
            elif spec.has_default:
                fields[name] = spec.default
            else:
                raise internal_failure(f"Field {name} not present in rpc")
        return fields

    def creation_fields(self, each: OvaObject) -> Fields:
        """Return those of an object's fields that the class's constructor takes."""
        specs = self.context.db.table(each.cls).fields
        return {name: value for name, value in self.fields(each).items() if specs[name].is_given_at_creation}

    def stored_fields(self, each: OvaObject) -> Fields:
        """Return those of an object's fields that a row holds: not its identity, not what follows from others."""
        specs = self.context.db.table(each.cls).fields
        kept = {name: value for name, value in self.fields(each).items() if specs[name].computed_from is None}
        kept.pop("uuid")
        return kept

    def clean_up(self) -> None:
        """Remove what was made, the last thing first. Safe to call twice."""
        while self._undo:
            undo = self._undo.pop()
            with contextlib.suppress(ApiFailure):
                undo()
