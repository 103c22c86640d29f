"""``GET`` and ``PUT /pool/xmldbdump``: the whole database of the pool out, and back in.

The way out has no length; the way in is answered before a byte of it was read, so only the task and what is appended
to the body tell how it went.
"""

from __future__ import annotations

from holdfast.core import MIB, get_log
from holdfast.lab.context import PoolCore
from holdfast.lab.dump import Dump, DumpMalformed, DumpReader, write_dump
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.transfer import Transfer
from holdfast.lab.http import pages
from holdfast.lab.records import Records
from holdfast.lab.restore import REBOOT_DELAY_S, RestorePlan, apply_restore, plan_restore

__all__ = ["export_database", "import_database"]

_PIECE_BYTES = MIB

log = get_log(__name__)


def export_database(one: Transfer) -> None:
    """Send the dump."""
    one.head()
    for piece in write_dump(one.pool.db, Records(one.pool.db).record):
        one.connection.send(piece)


def import_database(one: Transfer) -> None:
    """Take a dump; the pool reboots with it after a while unless this is a rehearsal."""
    one.keeps_open = one.request.is_keep_alive
    length_bytes = one.request.content_length
    if length_bytes is None:
        one.connection.send(pages.bad_request())
        return
    one.head()
    plan = plan_restore(one.pool, _receive(one, length_bytes))
    if one.request.query.get("dry_run") == "true":
        return
    pool = one.pool
    log.info("lab.restore-waits", seconds=REBOOT_DELAY_S)
    pool.chores.after("restore-reboot", REBOOT_DELAY_S, lambda: _reboot(pool, plan))


def _reboot(pool: PoolCore, plan: RestorePlan) -> None:
    """Come up with the restored database; who still waits on a connection sees it cut, as with any reboot."""
    apply_restore(pool, plan)
    pool.faults.arm("toolstack-restarts", seconds=0.0)


def _receive(one: Transfer, length_bytes: int) -> Dump:
    """Read the whole body, broken or not, and return the dump in it; one that ends early is read as it is."""
    reader = DumpReader(one.pool.db.datamodel)
    broken: DumpMalformed | None = None
    buffer = memoryview(bytearray(min(_PIECE_BYTES, length_bytes)))
    while length_bytes:
        piece = buffer[: min(len(buffer), length_bytes)]
        count = one.connection.readinto_fully(piece)
        length_bytes -= count
        try:
            if broken is None:
                reader.feed(piece[:count])
        except DumpMalformed as cause:
            broken = cause
        if count < len(piece):
            break
    try:
        if broken is not None:
            raise broken
        return reader.finish()
    except DumpMalformed as cause:
        raise ApiFailure("INTERNAL_ERROR", str(cause)) from cause
