"""``PUT /import``: a whole VM out of an archive, onto one storage repository.

The 200 is sent when the head was read. The VM is visible from when the description was read, busy with its import, and
the reading ends with the last block of the last disk: what follows is never read, so the connection is reset at the
end of a good import. Invariant: a failed import that was not forced leaves neither VM nor disks.
"""

from __future__ import annotations

from typing import cast

from holdfast.lab.errors import ApiFailure, internal_failure
from holdfast.lab.handlers.archive import OpenArchive, open_archive
from holdfast.lab.handlers.disk_stream import ArchivedDisk, Progress, receive_disks
from holdfast.lab.handlers.ova_checks import assert_compatible, reported
from holdfast.lab.handlers.ova_document import OvaDocument, parse_ova
from holdfast.lab.handlers.ova_import import Import, ImportWishes
from holdfast.lab.handlers.ova_parts import complete_import, handle_all
from holdfast.lab.handlers.ova_vm import assert_seeds_free
from holdfast.lab.handlers.transfer import Transfer, refused_early
from holdfast.lab.http import pages
from holdfast.lab.rpc import MalformedCall, parse_value

__all__ = ["import_vm"]

_TABLE_BYTES_MAX = 64 << 20


def import_vm(one: Transfer) -> None:
    """Receive the VM; the task's result is the list of the VMs made."""
    sr = _repository(one)
    try:
        one.assert_storage([sr])
    except ApiFailure as failure:
        raise refused_early(one, failure) from failure
    one.progress(0.0)
    if one.pool.db.text("SR", sr, "content_type") == "iso":
        one.connection.send(pages.bad_request())
        raise ApiFailure("SR_OPERATION_NOT_SUPPORTED")
    if "transfer-encoding" in one.request.headers:
        one.connection.send(pages.bare_forbidden())
        raise ApiFailure("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED")
    query = one.request.query
    wishes = ImportWishes(sr=sr, keeps_identity=query.get("restore") == "true", is_forced=query.get("force") == "true")
    one.head(f"task-id:{one.task}", "content-type: application/octet-stream")
    with reported():
        archive = open_archive(one.connection, length_bytes=one.request.content_length)
        one.result = _import(one, archive, wishes)
    one.resets_at_end = not archive.is_packed


def _repository(one: Transfer) -> str:
    """Return the repository asked for, or the pool's default one; a reference is taken as it is."""
    db = one.pool.db
    ref, uuid = one.request.parameter("sr_id"), one.request.parameter("sr_uuid")
    if ref is not None:
        return ref
    try:
        if uuid is not None:
            return db.by_uuid("SR", uuid)
        default = db.text("pool", one.pool.pool_ref, "default_SR")
        if not db.exists("SR", default):
            raise ApiFailure("DEFAULT_SR_NOT_FOUND", default)
    except ApiFailure as failure:
        raise refused_early(one, failure) from failure
    return default


def _import(one: Transfer, archive: OpenArchive, wishes: ImportWishes) -> list[str]:
    document = parse_ova(archive.description)
    assert_compatible(one.pool, document.version)
    work = Import(one.context, wishes, document.objects)
    if wishes.keeps_identity:
        assert_seeds_free(work)
    handle_all(work)
    one.pool.db.put_key("task", one.task, "other_config", key="object_creation", value="complete")
    try:
        _receive(one, archive, document, work)
    except BaseException:
        if not wishes.is_forced:
            work.clean_up()
        raise
    return complete_import(work)


def _receive(one: Transfer, archive: OpenArchive, document: OvaDocument, work: Import) -> None:
    tasks = one.pool.tasks
    tasks.allow_cancel(one.task)
    disks = _disks(work)
    checksums = receive_disks(
        one,
        archive,
        disks,
        version=document.version.archive,
        is_forced=work.wishes.is_forced,
    )
    Progress(one, disks).check()
    tasks.seal(one.task)
    if document.version.archive < 2 and not _agrees(checksums, _read_table(archive)) and not work.wishes.is_forced:
        raise ApiFailure("IMPORT_ERROR_SOME_CHECKSUMS_FAILED")


def _disks(work: Import) -> list[ArchivedDisk]:
    """Return the disks whose blocks the archive holds: no discs, whatever drive they are in."""
    attached: list[str] = []
    for vbd in work.of("VBD"):
        fields = work.fields(vbd)
        if fields["type"] == "CD":
            continue
        disk = work.fields(work.in_file(fields["VDI"]), cls="VDI")
        if work.fields(work.in_file(disk["SR"]), cls="SR")["content_type"] != "iso":
            attached.append(str(fields["VDI"]))
    disks: list[ArchivedDisk] = []
    for each in work.of("VDI"):
        fields = work.fields(each)
        if (each.id in attached or fields["type"] == "suspend") and work.has(each.id):
            disks.append(ArchivedDisk(each.id, work.ref(each.id), cast(int, fields["virtual_size"])))
    return disks


def _read_table(archive: OpenArchive) -> dict[str, str]:
    """Return the table of checksums that old archives end with."""
    member = archive.next_member()
    try:
        table = parse_value(archive.read(min(member.length_bytes, _TABLE_BYTES_MAX)))
    except MalformedCall as cause:
        raise ApiFailure("INTERNAL_ERROR", str(cause)) from cause
    if not isinstance(table, dict):
        raise internal_failure("Expected Dictionary")
    return {str(name): str(value) for name, value in table.items()}


def _agrees(own: dict[str, str], table: dict[str, str]) -> bool:
    """Whether no block differs from the table; one that is missing there counts for nothing."""
    return all(table.get(name, checksum) == checksum for name, checksum in own.items())
