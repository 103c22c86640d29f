"""The hosts of a pool: where each listens, which storage it sees, and who of them is master.

All hosts of a lab share one process, one database and one set of disks; what tells them apart is the address that a
request came to. Invariant: exactly one host is master, and only it answers calls.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import quote

from holdfast.lab.context import PoolCore
from holdfast.lab.errors import ApiFailure
from holdfast.lab.http import Request, pages

__all__ = [
    "check_alive",
    "forget_operations",
    "host_address",
    "make_master",
    "named_host",
    "redirect",
    "restart_toolstack",
    "sees_storage",
    "storage_host",
]

_TLS_PORT = 443


def host_address(first: str, number: int) -> str:
    """Return the address of the host with this number (0 is the first).

    A loopback address is counted upwards, for all of 127.0.0.0/8 is this machine: so every host has an address of its
    own at the ports of the first, as on a real pool. Any other address is shared, and hosts differ by their ports.
    """
    try:
        address = ipaddress.ip_address(first)
    except ValueError:
        return first
    if isinstance(address, ipaddress.IPv4Address) and address.is_loopback:
        return str(address + number)
    return first


def named_host(pool: PoolCore, name: str) -> str | None:
    """Return the host with this reference, uuid or name; None for an empty name. ``HANDLE_INVALID`` for another."""
    if not name:
        return None
    for row in pool.db.rows("host"):
        if name in (row.ref, row.fields["uuid"], row.fields["name_label"]):
            return row.ref
    raise ApiFailure("HANDLE_INVALID", "host", name)


def check_alive(pool: PoolCore, host: str) -> None:
    """Return when the host can be asked to do something, which whoever answers now can; ``HOST_OFFLINE`` otherwise.

    A host that nobody knows is as little alive as one that is down.
    """
    row = pool.db.find("host", host)
    metrics = row and pool.db.find("host_metrics", str(row.fields["metrics"]))
    if host != pool.master_ref and not (metrics and metrics.fields["live"]):
        raise ApiFailure("HOST_OFFLINE", host)


def sees_storage(pool: PoolCore, host: str, srs: Iterable[str]) -> bool:
    """Whether every one of the storage repositories is attached to the host."""
    return all(host in _attached_hosts(pool, sr) for sr in srs)


def storage_host(pool: PoolCore, srs: Iterable[str]) -> str:
    """Return a host that sees all of the storage repositories; ``NO_HOSTS_AVAILABLE`` when there is none."""
    wanted = list(srs)
    for row in pool.db.rows("host"):
        if row.fields["enabled"] and sees_storage(pool, row.ref, wanted):
            return row.ref
    raise ApiFailure("NO_HOSTS_AVAILABLE")


def _attached_hosts(pool: PoolCore, sr: str) -> set[str]:
    db = pool.db
    row = db.find("SR", sr)
    if row is None:
        return set()
    pbds = [db.row("PBD", pbd).fields for pbd in db.texts("SR", sr, "PBDs")]
    return {str(pbd["host"]) for pbd in pbds if pbd["currently_attached"]}


def redirect(pool: PoolCore, request: Request, host: str) -> bytes:
    """Return the answer that sends a transfer to ``host``: its query is repeated, its cookies are not.

    The address is always that of HTTPS; the port is left out when it is the usual one.
    """
    address = pool.db.text("host", host, "address")
    authority = f"[{address}]" if ":" in address else address
    port = pool.tls_ports.get(host, _TLS_PORT)
    if port != _TLS_PORT:
        authority = f"{authority}:{port}"
    query = "&".join(f"{quote(name, safe=_NAME)}={quote(value, safe=_VALUE)}" for name, value in request.query.items())
    target = f"https://{authority}{quote(request.path)}" + (f"?{query}" if query else "")
    return pages.plain_head("HTTP/1.1 302 Found", f"Location: {target}")


_NAME = "!$'()*,:@/?"
_VALUE = "!$'()*=:@/?"
"""What stays unescaped in the query of a redirect."""


def make_master(pool: PoolCore, host: str) -> None:
    """Let ``host`` be the master from now on, as after a failover: sessions and tasks are those of the old master and
    end with it; whoever asks the old master is sent to the new one."""
    with pool.db.transaction():
        pool.db.row("host", host)
        if pool.master_ref == host:
            return
        pool.db.set("pool", pool.pool_ref, "master", host)
        restart_toolstack(pool)
    pool.on_new_master()


def restart_toolstack(pool: PoolCore) -> None:
    """Forget what only the management daemon's memory holds: sessions, tasks, running operations, and what was deleted.

    So nobody is told by an event that the tasks are gone.
    """
    with pool.db.transaction():
        pool.tasks.destroy_all()
        pool.sessions.close_all()
        forget_operations(pool)
        pool.db.forget_deletions()


def forget_operations(pool: PoolCore) -> None:
    """Let no object be busy: operations end with the process that ran them."""
    with pool.db.transaction():
        for cls, table in pool.db.datamodel.classes.items():
            if "current_operations" not in table.fields:
                continue
            for row in pool.db.rows(cls):
                if row.fields["current_operations"]:
                    pool.db.set(cls, row.ref, "current_operations", {})
