"""``PUT /import_metadata``: make VMs from a description, on disks that are there already.

Disks are found by an explicit mapping (``vdi:<old uuid>=<new uuid>``) or by their location on the same repository.
``restore`` keeps identities: uuid, MAC addresses, seed. Invariant: a refused import has changed nothing.
"""

from __future__ import annotations

from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.archive import EndOfFile, OpenArchive, open_archive
from holdfast.lab.handlers.ova_checks import assert_compatible, reported
from holdfast.lab.handlers.ova_document import parse_ova
from holdfast.lab.handlers.ova_import import Import, ImportWishes
from holdfast.lab.handlers.ova_parts import complete_import, handle_all
from holdfast.lab.handlers.ova_vm import assert_seeds_free
from holdfast.lab.handlers.transfer import Refused, Transfer

__all__ = ["import_metadata"]

_MAPPING_PREFIX = "vdi"


def import_metadata(one: Transfer) -> None:
    """Receive a description and make its VMs; the task's result is the list of them."""
    query = one.request.query
    wishes = ImportWishes(
        sr=None,
        keeps_identity=query.get("restore") == "true",
        is_forced=query.get("force") == "true",
        is_dry=query.get("dry_run") == "true",
        is_live=query.get("live") == "true",
        checks_cpu=query.get("check_cpu") == "true",
        disks=_mapping(query),
    )
    one.head(f"task-id:{one.task}", "content-type: application/octet-stream")
    try:
        archive = open_archive(one.connection, length_bytes=one.request.content_length)
        one.result = _import(one, archive, wishes)
    except EndOfFile as cause:
        # The pool takes this for a client that went away, and says nothing.
        raise Refused(b"", ApiFailure("INTERNAL_ERROR", "End_of_file")) from cause
    except ApiFailure as failure:
        if failure.code == "IMPORT_ERROR_UNEXPECTED_FILE":
            raise ApiFailure("INTERNAL_ERROR", "Import.IFailure(_)") from failure
        raise


def _mapping(query: dict[str, str]) -> dict[str, str]:
    """Return which disks take whose place; whatever stands between the word and the uuid is not looked at."""
    at = len(_MAPPING_PREFIX) + 1
    return {name[at:]: value for name, value in query.items() if name.startswith(_MAPPING_PREFIX) and name[at:]}


def _import(one: Transfer, archive: OpenArchive, wishes: ImportWishes) -> list[str]:
    document = parse_ova(archive.description)
    assert_compatible(one.pool, document.version)
    work = Import(one.context, wishes, document.objects)
    if wishes.keeps_identity:
        assert_seeds_free(work)
    with reported():
        handle_all(work)
        try:
            return complete_import(work)
        except BaseException:
            if not wishes.is_forced:
                work.clean_up()
            raise
