"""What the pool of a folder was made with, so that a later start need not say it again, nor can say otherwise unheard.

Invariant: the file is written by a lab that answers; the pool itself stays the judge of which scenario it holds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from holdfast.lab.options import LabOptions, LabStateMismatch, NbdPurpose

__all__ = ["FOUNDING_FILE", "LabWishes", "keep_founding", "resume_options"]

FOUNDING_FILE = "made-with.json"
"""The file in the folder that holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabWishes:
    """What somebody asks of a pool that is made once; None is no wish."""

    scenario: str | None = None
    hosts: int | None = None
    """At least so many."""
    nbd: NbdPurpose | None = None
    cbt: bool | None = None
    role_users: bool | None = None
    """Once they are there they stay."""
    seed: int | None = None
    storage_bytes: int | None = None


_SPOKEN = {
    "scenario": "the scenario",
    "nbd": "NBD",
    "cbt": "change tracking",
    "seed": "the seed",
    "storage_bytes": "storage of so many bytes:",
}


def resume_options(state_dir: Path, wishes: LabWishes) -> LabOptions:
    """Return what to start the lab of a folder with: as its pool was made, else as wished, else the defaults.

    ``LabStateMismatch`` for a wish that the pool in the folder does not fulfil.
    """
    wished = {name: value for name, value in asdict(wishes).items() if value is not None}
    held = _read(state_dir)
    for name, wanted in wished.items():
        if name in _SPOKEN and name in held and held[name] != wanted:
            raise LabStateMismatch(what=_SPOKEN[name], held=_told(held[name]), wanted=_told(wanted))
    if wishes.hosts is not None and wishes.hosts > int(str(held.get("hosts", wishes.hosts))):
        raise LabStateMismatch(what="hosts:", held=held["hosts"], wanted=wishes.hosts)
    if wishes.role_users:
        held["role_users"] = True
    return replace(LabOptions(state_dir=state_dir), **{**wished, **held})


def keep_founding(options: LabOptions) -> None:
    """Write down what the pool was made with."""
    facts = {name: getattr(options, name) for name in LabWishes.__slots__}
    path = options.state_dir / FOUNDING_FILE
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    unfinished.chmod(0o600)
    unfinished.replace(path)


def _read(state_dir: Path) -> dict[str, object]:
    """Return what the folder's pool was made with; nothing for a folder without a pool, or an unreadable file."""
    try:
        facts = json.loads((state_dir / FOUNDING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: facts[name] for name in LabWishes.__slots__ if name in facts} if isinstance(facts, dict) else {}


def _told(value: object) -> object:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "left to the lab" if value is None else value
