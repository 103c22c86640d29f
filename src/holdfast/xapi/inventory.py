"""What a pool holds at one moment, as a value that can be searched by name or uuid."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from holdfast.model import Host, Network, Pool, Sr, Vm
from holdfast.xapi.errors import VmAmbiguous, VmUnknown

__all__ = ["Inventory"]

_NEAR_NAMES_MAX = 5
"""More suggestions for a mistyped name than this would hide the right one."""


class _Named(Protocol):
    @property
    def uuid(self) -> str: ...

    @property
    def name(self) -> str: ...


_T = TypeVar("_T", bound=_Named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything that decisions need: no templates, no snapshots, no control domains among the VMs."""

    pool: Pool
    hosts: tuple[Host, ...]
    srs: tuple[Sr, ...]
    networks: tuple[Network, ...]
    vms: tuple[Vm, ...]
    """Sorted by name, then uuid."""

    def find_vm(self, wanted: str) -> Vm:
        """Return the VM with that uuid or name. ``VmUnknown`` with near names, ``VmAmbiguous`` with the uuids."""
        return _find(wanted, self.vms, kind="VM")

    def find_sr(self, wanted: str) -> Sr:
        """Return the SR with that uuid or name; errors as ``find_vm``."""
        return _find(wanted, self.srs, kind="SR")

    def find_network(self, wanted: str) -> Network:
        """Return the network with that uuid or name; errors as ``find_vm``."""
        return _find(wanted, self.networks, kind="network")

    @property
    def default_sr(self) -> Sr | None:
        """The pool's default SR, if it has one that exists."""
        return next((each for each in self.srs if each.uuid == self.pool.default_sr), None)


def _find(wanted: str, among: Sequence[_T], *, kind: str) -> _T:
    by_uuid = [each for each in among if each.uuid == wanted.lower()]
    if by_uuid:
        return by_uuid[0]
    matches = [each for each in among if each.name == wanted]
    # An exact name wins; without one, a name that differs in case only is what was meant.
    matches = matches or [each for each in among if each.name.casefold() == wanted.casefold()]
    if not matches:
        raise VmUnknown(wanted=wanted, near=_near(wanted, (each.name for each in among)), kind=kind)
    if len(matches) > 1:
        raise VmAmbiguous(wanted=wanted, uuids=[each.uuid for each in matches], kind=kind)
    return matches[0]


def _near(wanted: str, names: Iterable[str]) -> list[str]:
    by_folded = {name.casefold(): name for name in names}
    folded = wanted.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=_NEAR_NAMES_MAX, cutoff=0.6)
    containing = [each for each in sorted(by_folded) if folded in each and each not in close]
    return [by_folded[each] for each in (close + containing)[:_NEAR_NAMES_MAX]]
