"""The doors of a lab: per host one for plain HTTP, one for TLS, one for NBD, at the ports of the folder's last run.

Invariant: hosts with an address of their own use the same ports, as on a real pool, unless the machine has them taken.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from holdfast.core import ExitStatus, HoldfastError, get_log
from holdfast.lab.context import PoolCore
from holdfast.lab.hosts import host_address
from holdfast.lab.http import Connection, HttpServer, Listener, Request
from holdfast.lab.nbd import NbdServer
from holdfast.lab.nbd_service import NbdService
from holdfast.lab.options import LabOptions
from holdfast.lab.store import RowStore

__all__ = ["HostDoors", "LabPortUnusable", "MovedDoor", "open_doors"]

log = get_log(__name__)

T = TypeVar("T", bound="_Door")
ServeAs = Callable[[str], Callable[[Request, Connection], bool]]


class LabPortUnusable(HoldfastError):
    """The port that a lab was told to listen at is not to be had."""

    code = "lab.port-unusable"
    exit_status = ExitStatus.BUSY
    effect = "No lab was started; the pool in the folder is as it was."
    advice = "Choose another port, or leave it out for one that is free."

    def __init__(self, *, port: int, why: str) -> None:
        super().__init__(f"the lab cannot listen at port {port}: {why}")
        self.port, self.why = port, why


@dataclass(frozen=True, slots=True)
class MovedDoor:
    """A door that is not where it was at the last run, because something else listens there now."""

    name: str
    """``plain``, ``tls`` or ``nbd``."""
    wanted_port: int
    port: int


@dataclass(frozen=True, slots=True)
class HostDoors:
    """What one host listens with."""

    host: str
    plain: Listener
    tls: Listener
    nbd: NbdServer
    nbd_address: tuple[str, int]
    moved: tuple[MovedDoor, ...] = ()

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where it answers HTTP, plain and encrypted."""
        return self.plain.address, self.tls.address

    @property
    def url(self) -> str:
        """HTTPS."""
        return f"https://{_authority(self.tls.address)}"

    @property
    def plain_url(self) -> str:
        """Plain HTTP."""
        return f"http://{_authority(self.plain.address)}"


def open_doors(
    pool: PoolCore, options: LabOptions, store: RowStore, server: HttpServer, serve_as: ServeAs, tls: ssl.SSLContext
) -> list[HostDoors]:
    """Return the open doors of every host, first host first. On failure none of the NBD doors stays open."""
    opener = _Opener(pool, options, _Ports(store), server, serve_as, tls)
    doors: list[HostDoors] = []
    try:
        for number, row in enumerate(pool.db.rows("host")):
            doors.append(opener.open(row.ref, number, doors[0] if doors else None))
        opener.ports.remember(pool)
    except BaseException:
        for each in doors:
            each.nbd.close()
        raise
    pool.nbd_port = doors[0].nbd.address[1]
    pool.tls_ports.update({each.host: each.tls.address[1] for each in doors})
    return doors


class _Opener:
    """Opens the doors of one host after the other."""

    def __init__(
        self,
        pool: PoolCore,
        options: LabOptions,
        ports: _Ports,
        server: HttpServer,
        serve_as: ServeAs,
        tls: ssl.SSLContext,
    ) -> None:
        self.ports = ports
        self._pool = pool
        self._options = options
        self._server = server
        self._serve_as = serve_as
        self._tls = tls
        self._nbd = NbdService(pool)

    def open(self, host: str, number: int, first: HostDoors | None) -> HostDoors:
        """Return the doors of the host with this number; ``first`` are those of the first host, once it has any."""
        address = host_address(self._options.host, number)
        if first is None:
            asked = (self._options.plain_port, self._options.tls_port, self._options.nbd_port)
        elif address != self._options.host:
            asked = (first.plain.address[1], first.tls.address[1], first.nbd.address[1])
        else:
            asked = (0, 0, 0)
        prefix = f"member.{number}." if number else ""
        serve = self._serve_as(host)

        def open_door(name: str, port: int, listen: Callable[[int], T]) -> T:
            return self.ports.open(prefix + name, port, listen, is_movable=first is not None)

        def listen(port: int, tls: ssl.SSLContext | None) -> Listener:
            return self._server.listen(address, port, serve=serve, tls=tls)

        plain = open_door("plain", asked[0], lambda port: listen(port, None))
        encrypted = open_door("tls", asked[1], lambda port: listen(port, self._tls))
        nbd = open_door("nbd", asked[2], lambda port: self._nbd_server((address, port)))
        return HostDoors(host, plain, encrypted, nbd, nbd.address, self.ports.take_moved())

    def _nbd_server(self, address: tuple[str, int]) -> NbdServer:
        nbd = self._nbd
        clock = self._pool.clock
        return NbdServer(address, ssl_context=self._tls, mode=nbd.mode, resolve=nbd.resolve, hooks=nbd, clock=clock)


class _Door(Protocol):
    """Whatever listens."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""


class _Ports:
    """The ports of the folder's last run, so that who knows the pool's address finds it again."""

    def __init__(self, store: RowStore) -> None:
        self._store = store
        self._chosen: dict[str, int] = {}
        self._moved: list[MovedDoor] = []

    def open(self, name: str, asked: int, listen: Callable[[int], T], *, is_movable: bool) -> T:
        """Return what listens: at the port asked for, else at the last run's, else at any that is free.

        A port that was asked for and is not to be had is ``LabPortUnusable`` unless the door ``is_movable``. One that
        was moved is not remembered: the next run tries the old port again.
        """
        last = 0 if asked else int(self._store.fact(f"port.{name}") or "0")
        try:
            door = listen(asked or last)
        except OSError as cause:
            taken = asked or last
            if taken and not (last or is_movable):
                raise LabPortUnusable(port=taken, why=cause.strerror or str(cause)) from cause
            if cause.errno != errno.EADDRINUSE:
                raise
            log.warning("lab.port-taken", what=name, port=taken, why="something else listens there; another is chosen")
            door = listen(0)
            self._moved.append(MovedDoor(name.rpartition(".")[2], taken, door.address[1]))
            return door
        self._chosen[name] = door.address[1]
        return door

    def take_moved(self) -> tuple[MovedDoor, ...]:
        """Return the doors that were moved since this was asked last."""
        moved, self._moved = self._moved, []
        return tuple(moved)

    def remember(self, pool: PoolCore) -> None:
        """Keep the ports for the next run."""
        with pool.db.lock:  # the pool answers already, and the store has one user at a time
            for name, port in self._chosen.items():
                self._store.set_fact(f"port.{name}", str(port))


def _authority(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
