"""``GET /export``: a whole VM as an archive, packed or plain.

The VM is busy with the export while it runs. Errors that come before the first byte are an answer of their own, all
later ones come inside the body. Invariant: the archive is sent as it is made, so memory does not grow with disks.
"""

from __future__ import annotations

import contextlib
import errno
import zlib
from collections.abc import Callable, Iterator

from backports import zstd

from holdfast.formats.xva import XvaWriter
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.disk_stream import ArchivedDisk, Bytes, Send, send_disks
from holdfast.lab.handlers.faulty_xva import with_xva_faults
from holdfast.lab.handlers.ova_collect import Collection, Wishes, pool_version
from holdfast.lab.handlers.ova_document import write_ova
from holdfast.lab.handlers.transfer import Refused, Transfer, refused_early
from holdfast.lab.hosts import redirect, sees_storage, storage_host
from holdfast.lab.http import Disconnected, pages
from holdfast.lab.rules import check_vm_operation

__all__ = ["archive_head", "busy_vm", "export_vm", "find_vm", "query_word"]

_LOCK_WAIT_S_MAX = 120.0
"""How long an export waits for a VM that is busy otherwise."""


def query_word(one: Transfer, name: str) -> bool:
    """Return a boolean that may come as a cookie or in the query; the pool's exception for any other word."""
    text = one.request.parameter(name)
    if text not in (None, "true", "false"):
        raise ApiFailure("INTERNAL_ERROR", "Invalid argument: bool_of_string")
    return text == "true"


def find_vm(one: Transfer) -> str:
    """Return the VM that the query names; a reference is taken as it is. The pool's own exceptions otherwise."""
    query = one.request.query
    if "ref" in query:
        return query["ref"]
    if "uuid" not in query:
        raise ApiFailure("INTERNAL_ERROR", "Not_found")
    return one.pool.db.by_uuid("VM", query["uuid"])


def archive_head(one: Transfer, *extra: str) -> bytes:
    """Return the head in front of an archive."""
    return pages.plain_head(
        "HTTP/1.0 200 OK",
        f"task-id: {one.task}",
        f"Server: xapi/{pool_version(one.pool)['xapi_major']}.{pool_version(one.pool)['xapi_minor']}",
        "content-type: application/octet-stream",
        *extra,
        'Content-Disposition: attachment; filename="export.xva"',
    )


def export_vm(one: Transfer) -> None:
    """Send the VM."""
    try:
        vm = find_vm(one)
    except ApiFailure as failure:
        raise refused_early(one, failure, is_answer=True) from failure
    if not _is_reachable(one, vm, one.host):
        _send_elsewhere(one, vm)
    one.progress(0.0)
    keeps_state = query_word(one, "preserve_power_state")
    with busy_vm(one, vm, "export"):
        one.connection.send(archive_head(one))
        _send_archive(one, vm, keeps_state=keeps_state)


@contextlib.contextmanager
def busy_vm(one: Transfer, vm: str, operation: str) -> Iterator[None]:
    """Have the operation running on the VM while the block runs; what else is possible is computed anew."""
    pool = one.pool

    def recompute() -> None:
        if pool.db.exists("VM", vm):
            pool.db.set("VM", vm, "allowed_operations", [])

    pool.tasks.allow_cancel(one.task)
    lock = pool.operations.running(
        "VM",
        vm,
        operation,
        task=one.task,
        check=lambda: check_vm_operation(pool.db, vm, operation),
        wait_s_max=_LOCK_WAIT_S_MAX,
    )
    with contextlib.ExitStack() as end, lock:
        recompute()
        end.callback(recompute)  # when the lock is gone
        yield


def _is_reachable(one: Transfer, vm: str, host: str) -> bool:
    db = one.pool.db
    return db.exists("VM", vm) and sees_storage(one.pool, host, _repositories(one, vm))


def _repositories(one: Transfer, vm: str) -> list[str]:
    """Return the repositories of the VM's disks and discs; for a disk that is gone, something that no host sees."""
    db = one.pool.db
    vdis = [db.text("VBD", vbd, "VDI") for vbd in db.texts("VM", vm, "VBDs") if not db.flag("VBD", vbd, "empty")]
    if db.text("VM", vm, "power_state") == "Suspended":
        vdis.append(db.text("VM", vm, "suspend_VDI"))
    return [db.text("VDI", vdi, "SR") if db.exists("VDI", vdi) else vdi for vdi in vdis]


def _send_elsewhere(one: Transfer, vm: str) -> None:
    """Point to a host that sees the disks. When there is none, the task says so, and the client gets no answer."""
    try:
        if not one.pool.db.exists("VM", vm):
            raise ApiFailure("NO_HOSTS_AVAILABLE")
        host = storage_host(one.pool, _repositories(one, vm))
    except ApiFailure as failure:
        raise Refused(b"", failure) from failure
    raise Refused(redirect(one.pool, one.request, host))


def _send_archive(one: Transfer, vm: str, *, keeps_state: bool) -> None:
    db = one.pool.db
    with db.lock:
        collection = Collection(one.pool, Wishes(power_state=keeps_state))
        collection.add_vm(vm)
        body = write_ova(collection.objects(), pool_version(one.pool))
    packer = _packer(one.request.query.get("use_compression", ""))
    send = with_xva_faults(one.pool, _sender(one, packer))
    writer = XvaWriter()
    for piece in writer.description(body, time_s=int(one.pool.clock.now().timestamp())):
        send(piece)
    try:
        send_disks(one, send, writer, _disks(one, vm, collection, keeps_state=keeps_state))
    except ApiFailure as failure:
        if failure.code == "INTERNAL_ERROR" and failure.params[0].startswith("Unix.Unix_error("):
            raise ApiFailure("CLIENT_ERROR", str(failure)) from failure
        raise
    for piece in writer.end():
        send(piece)
    if packer is not None:
        _send_plain(one, packer.flush())


def _disks(one: Transfer, vm: str, collection: Collection, *, keeps_state: bool) -> list[ArchivedDisk]:
    db = one.pool.db
    vdis = [db.text("VBD", vbd, "VDI") for vbd in db.texts("VM", vm, "VBDs") if db.text("VBD", vbd, "type") != "CD"]
    if keeps_state and db.text("VM", vm, "power_state") == "Suspended":
        vdis.insert(0, db.text("VM", vm, "suspend_VDI"))
    disks: list[ArchivedDisk] = []
    for vdi in vdis:
        if db.text("SR", db.text("VDI", vdi, "SR"), "content_type") != "iso" and vdi in collection.names:
            disks.append(ArchivedDisk(collection.names[vdi], vdi, db.number("VDI", vdi, "virtual_size")))
    return disks


class _Gzip:
    """Packs quickly: what a client unpacks is the same at every level."""

    def __init__(self) -> None:
        self._state = zlib.compressobj(1, zlib.DEFLATED, 31)

    def pack(self, data: Bytes) -> bytes:
        return self._state.compress(data)

    def flush(self) -> bytes:
        return self._state.flush()


class _Zstd:
    """See ``_Gzip``."""

    def __init__(self) -> None:
        self._state = zstd.ZstdCompressor(level=1)

    def pack(self, data: Bytes) -> bytes:
        return self._state.compress(data)

    def flush(self) -> bytes:
        return self._state.flush()


def _packer(word: str) -> _Gzip | _Zstd | None:
    makers: dict[str, Callable[[], _Gzip | _Zstd]] = {"true": _Gzip, "gzip": _Gzip, "zstd": _Zstd}
    return makers[word]() if word in makers else None


def _sender(one: Transfer, packer: _Gzip | _Zstd | None) -> Send:
    if packer is None:
        return lambda data: _send_plain(one, data)
    pack = packer.pack
    return lambda data: _send_plain(one, pack(data))


def _send_plain(one: Transfer, data: Bytes) -> None:
    """Send; a client that is gone is an exception with the name that the pool gives it."""
    if not len(data):
        return
    try:
        one.connection.send(data)
    except Disconnected as cause:
        number = getattr(cause.__cause__, "errno", None)
        name = errno.errorcode.get(number, "ECONNRESET") if number else "ECONNRESET"
        raise ApiFailure("INTERNAL_ERROR", f'Unix.Unix_error(Unix.{name}, "write", "")') from cause
