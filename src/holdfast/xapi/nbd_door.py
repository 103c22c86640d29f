"""Which host to read a disk from: asked of the pool each time, tried in order, dead ones remembered for a while.

Invariant: connections are opened one after the other. Each makes the host attach the disk, and attaching one disk
several times at once is what leaves it stuck to the control domain.
"""

from __future__ import annotations

import threading

from holdfast.core import Cancellation, get_log
from holdfast.model import DiskUuid
from holdfast.xapi.calls import Calls
from holdfast.xapi.errors import NbdUnavailable, PoolFailure
from holdfast.xapi.nbd import NbdConnection, probe_server
from holdfast.xapi.records import as_object, integer, text
from holdfast.xapi.tls import NoTls
from holdfast.xapi.values import NbdServer

__all__ = ["NbdDoor"]

_log = get_log(__name__)

_DEAD_S = 300.0
"""A host that did not answer is asked again after five minutes: longer than a reboot of its NBD server."""


class NbdDoor:
    """Opens disks of one pool over NBD. Thread-safe; shared by all readers of a client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._dead_since_s: dict[tuple[str, int], float] = {}

    def servers(self, calls: Calls, disk: DiskUuid) -> list[NbdServer]:
        """Return who serves the disk now, the living first. ``NbdUnavailable`` when nobody does."""
        try:
            answer = calls.call("VDI.get_nbd_info", calls.ref("VDI", disk))
        except PoolFailure as failure:
            raise NbdUnavailable(why=f"the pool does not say where to read the disk [{failure.xapi_code}]") from failure
        infos = [as_object(each, what="VDI.get_nbd_info") for each in (answer if isinstance(answer, list) else [])]
        if not infos:
            raise NbdUnavailable(why="no network of the hosts that see the disk is marked with purpose 'nbd'")
        servers = [
            NbdServer(
                address=text(info, "address"),
                port=integer(info, "port"),
                export_name=text(info, "exportname"),
                certificate_pem=text(info, "cert"),
                subject=text(info, "subject"),
            )
            for info in infos
        ]
        return sorted(servers, key=lambda server: self._is_dead(calls, server))

    def probe(self, calls: Calls, disk: DiskUuid) -> list[NbdServer]:
        """Return who serves the disk once one of them was seen to speak NBD. ``NbdUnavailable`` with every reason."""
        servers = self.servers(calls, disk)
        reasons: list[str] = []
        for server in servers:
            try:
                probe_server(server, allow_plain=_allows_plain(calls), cancel=calls.cancel)
            except NbdUnavailable as failure:
                self._mark_dead(calls, server)
                reasons.append(failure.why)
            else:
                self._mark_living(server)
                return servers
        raise NbdUnavailable(why="; ".join(reasons))

    def open(self, calls: Calls, disk: DiskUuid, *, cancel: Cancellation) -> NbdConnection:
        """Return an open connection to the first host that gives one. ``NbdUnavailable`` with every reason."""
        with self._opening:
            cancel.check()
            reasons: list[str] = []
            for server in self.servers(calls, disk):
                try:
                    connection = NbdConnection(server, allow_plain=_allows_plain(calls), cancel=cancel)
                except NbdUnavailable as failure:
                    self._mark_dead(calls, server)
                    reasons.append(failure.why)
                    _log.info("nbd.server-skipped", address=server.address, why=failure.why)
                else:
                    self._mark_living(server)
                    return connection
        raise NbdUnavailable(why="; ".join(reasons))

    def _is_dead(self, calls: Calls, server: NbdServer) -> bool:
        with self._lock:
            since_s = self._dead_since_s.get((server.address, server.port))
        return since_s is not None and calls.clock.monotonic_s() - since_s < _DEAD_S

    def _mark_dead(self, calls: Calls, server: NbdServer) -> None:
        with self._lock:
            self._dead_since_s[server.address, server.port] = calls.clock.monotonic_s()

    def _mark_living(self, server: NbdServer) -> None:
        with self._lock:
            self._dead_since_s.pop((server.address, server.port), None)


def _allows_plain(calls: Calls) -> bool:
    """Whether the session may travel readable: only where it does so already."""
    return isinstance(calls.session.trust, NoTls)
