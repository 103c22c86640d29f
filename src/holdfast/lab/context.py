"""What every call of the pool works with: the pool's parts, and who is asking."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from holdfast.core import Entropy
from holdfast.lab.clock import LabClock
from holdfast.lab.database import Database, new_uuid
from holdfast.lab.datamodel import NULL_REF, DateTime
from holdfast.lab.disks import DiskStore
from holdfast.lab.faults import Faults
from holdfast.lab.housekeeping import Housekeeping
from holdfast.lab.operations import Operations
from holdfast.lab.options import LabDelays
from holdfast.lab.sessions import Sessions
from holdfast.lab.space import SpaceLedger
from holdfast.lab.tasks import Tasks

__all__ = ["CallSet", "Context", "PoolCore"]

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(slots=True)
class PoolCore:
    """One running pool: its database, disks and services. Shared by all threads."""

    db: Database
    disks: DiskStore
    clock: LabClock
    chores: Housekeeping
    entropy: Entropy
    faults: Faults
    sessions: Sessions
    tasks: Tasks
    operations: Operations
    delays: LabDelays
    address: str
    nbd_port: int = 0
    certificate_pem: str = ""
    certificate_subject: str = ""
    tls_ports: dict[str, int] = field(default_factory=dict)
    """HTTPS port by host reference; the hosts of one pool share it where the machine allows."""
    silent_until_s: dict[str, float] = field(default_factory=dict)
    """Until when a host answers nobody, by its reference, on the monotonic clock."""
    export_names: Iterator[int] = field(default_factory=itertools.count)
    """Numbers for the objects in exports; no two exports of one run use the same."""
    bridge_numbers: Iterator[int] = field(default_factory=itertools.count)
    """Numbers for the bridges of networks that ask for none; a bridge's name is given once."""
    forgotten_interfaces: dict[str, dict[str, str]] = field(default_factory=dict)
    """Addresses of interfaces without a record, by host and device; a host that starts anew has lost them."""
    revocation_lists: dict[str, str] = field(default_factory=dict)
    """Lists of revoked certificates that the hosts were given, by name; forgotten when the lab stops."""
    on_new_master: Callable[[], None] = lambda: None
    """Told when another host has become master."""
    space: SpaceLedger = field(init=False)
    """What the repositories hold; it sees to it that none holds more than it has."""

    def __post_init__(self) -> None:
        self.space = SpaceLedger(self.db, self.disks)

    def is_silent(self, host: str) -> bool:
        """Whether the host's management daemon is down for a moment."""
        return self.clock.monotonic_s() < self.silent_until_s.get(host, 0.0)

    def now(self) -> DateTime:
        """Return the pool's wall clock in the spelling of the API."""
        return DateTime.of(self.clock.now())

    def new_uuid(self) -> str:
        """Return a fresh identity."""
        return new_uuid(self.entropy)

    @property
    def pool_ref(self) -> str:
        """The pool object."""
        return self.db.rows("pool")[0].ref

    @property
    def master_ref(self) -> str:
        """The host that is master."""
        return self.db.text("pool", self.pool_ref, "master")

    def is_restricted(self, feature: str) -> bool:
        """Whether the pool's licence forbids a feature."""
        flags = self.db.mapping("pool", self.pool_ref, "restrictions")
        return flags.get(f"restrict_{feature}") == "true" or flags.get(f"enable_{feature}") == "false"

    @property
    def master_address(self) -> str:
        """Where the master is, as members tell it: an address without a port."""
        return self.db.text("host", self.master_ref, "address")

    @property
    def control_domain_ref(self) -> str:
        """The control domain of the master, to which exports attach their disks."""
        return self.db.text("host", self.master_ref, "control_domain")


@dataclass(frozen=True, slots=True)
class Context:
    """One call: the pool, the session it came with, and the task it runs in."""

    pool: PoolCore
    session: str = NULL_REF
    task: str = NULL_REF
    """A task's reference, or a dummy one for calls that were made synchronously."""
    host: str = NULL_REF
    """The host that received the call."""

    @property
    def db(self) -> Database:
        """The pool's database."""
        return self.pool.db


class CallSet:
    """The calls that one module answers, by their name on the wire."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[..., object]] = {}

    def on(self, *names: str) -> Callable[[Function], Function]:
        """Register the decorated function for these names; it gets a ``Context`` and the call's parameters."""

        def register(function: Function) -> Function:
            for name in names:
                assert name not in self.handlers, name
                self.handlers[name] = function
            return function

        return register
