"""A package is entered by its front door, and the door says what it offers."""

from __future__ import annotations

import pytest

from tests.tidy.doors import doors_of, openings, side_entries, unclear_doors
from tests.tidy.source import modules, report, snippet

DOORS: dict[str, frozenset[str] | None] = {
    "holdfast": frozenset({"__version__"}),
    "holdfast.core": frozenset({"Clock", "limits"}),
    "holdfast.formats": None,
    "holdfast.formats.vhd": frozenset({"VhdFile"}),
    "holdfast.lab": frozenset({"start_lab"}),
    "holdfast.lab.disks": frozenset({"DiskStore"}),
    "holdfast.lab.nbd": frozenset({"NbdServer"}),
}


@pytest.mark.slow(reason="reads the whole tree")
def test_every_package_of_the_project_is_entered_by_its_door() -> None:
    doors = doors_of(modules())
    assert (found := report(each for module in modules() for each in side_entries(module, doors))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_every_door_of_the_project_says_what_it_offers() -> None:
    assert (found := report(each for module in modules() for each in unclear_doors(module))) == "", found


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("src/holdfast/xapi/nbd.py", "from holdfast.core.clock import Clock"),
        ("src/holdfast/xapi/nbd.py", "import holdfast.core.clock"),
        ("src/holdfast/xapi/nbd.py", "from holdfast.core import units"),
        ("src/holdfast/xapi/nbd.py", "from holdfast.formats.vhd.read import VhdFile"),
        ("src/holdfast/xapi/nbd.py", "from holdfast.formats.vhd import Hidden"),
        ("src/holdfast/cli/lab.py", "from holdfast.lab.disks import DiskStore"),
        ("src/holdfast/lab/server.py", "from holdfast.lab.disks.store import DiskStore"),
        ("src/holdfast/lab/nbd/server.py", "from holdfast.lab.disks.store import DiskStore"),
        ("src/holdfast/lab/nbd/server.py", "from ..disks.store import DiskStore"),
        ("src/holdfast/cli/lab.py", "def f():\n    from holdfast.lab.server import x"),
    ],
)
def test_a_side_entry_is_found(importer: str, statement: str) -> None:
    assert len(list(side_entries(snippet(statement, path=importer), DOORS))) == 1


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("src/holdfast/xapi/nbd.py", "from holdfast.core import Clock, limits"),
        ("src/holdfast/xapi/nbd.py", "from holdfast.formats.vhd import VhdFile"),
        ("src/holdfast/xapi/nbd.py", "from holdfast.formats import vhd"),
        ("src/holdfast/cli/main.py", "from holdfast import __version__"),
        ("src/holdfast/core/clock.py", "from holdfast.core.cancel import Cancellation"),
        ("src/holdfast/lab/server.py", "from holdfast.lab.disks import DiskStore"),
        ("src/holdfast/lab/server.py", "from holdfast.lab.database import Database"),
        ("src/holdfast/lab/disks/store.py", "from holdfast.lab.disks.layer import Layer"),
        ("src/holdfast/lab/disks/store.py", "from .layer import Layer"),
        ("src/holdfast/lab/disks/store.py", "from holdfast.lab.nbd import NbdServer"),
        ("src/holdfast/xapi/nbd.py", "import numpy.typing as npt"),
        ("src/holdfast/__main__.py", "from holdfast.core.clock import Clock"),
        ("tests/unit/core/test_clock.py", "from holdfast.core.clock import Clock"),
    ],
)
def test_the_front_door_and_ones_own_rooms_are_open(importer: str, statement: str) -> None:
    assert list(side_entries(snippet(statement, path=importer), DOORS)) == []


@pytest.mark.parametrize(
    "door",
    [
        "from holdfast.core.clock import Clock",
        "__all__ = ['gone']",
        "__all__ = ['a', 'a']\na = 1",
        "__all__ = list('ab')\na = b = 1",
    ],
)
def test_an_unclear_door_is_found(door: str) -> None:
    assert len(list(unclear_doors(snippet(door, path="src/holdfast/core/__init__.py")))) == 1


@pytest.mark.parametrize(
    "door",
    [
        '"""Only words."""',
        "__all__ = ['MAX_BYTES', 'Clock', 'read']\nfrom holdfast.core.x import MAX_BYTES, Clock, read",
        "__all__ = ['late']\ndef __getattr__(name): ...",
    ],
)
def test_a_clear_door_passes(door: str) -> None:
    assert list(unclear_doors(snippet(door, path="src/holdfast/core/__init__.py"))) == []


def test_a_house_of_packages_is_read_from_the_tree() -> None:
    doors = doors_of([snippet("__all__ = ['x']\nx = 1", path="src/holdfast/core/__init__.py"), snippet("y = 1")])
    assert doors == {"holdfast.core": frozenset({"x"})}
    assert openings(snippet("x = 1")) is None
