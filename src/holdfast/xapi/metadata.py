"""The pool's own description of a VM: exported beside the disks, imported to give a restored VM its identity.

It is the only way to a TPM's contents, and the most faithful one to everything else. Invariant: an import is judged by
its task, and makes exactly one VM or is an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.core import Cancellation
from holdfast.model import DiskUuid, VmUuid
from holdfast.xapi.calls import Calls
from holdfast.xapi.errors import MetadataImportFailed
from holdfast.xapi.records import flag
from holdfast.xapi.transfer import Download, TransferRequest, upload

__all__ = ["export_metadata", "import_metadata"]


def export_metadata(calls: Calls, vm: VmUuid) -> bytes:
    """Return a tar with ``ova.xml``, snapshots left out."""
    request = TransferRequest(
        verb="GET",
        path="/export_metadata",
        query={"uuid": str(vm), "export_snapshots": "false"},
        operation=f"metadata of VM {vm}",
    )
    with Download(calls, request, with_task=True, cancel=calls.cancel) as body:
        data = body.read_all()
        body.judge()
    return data


def import_metadata(
    calls: Calls, metadata: bytes, *, disk_map: Mapping[DiskUuid, DiskUuid], restore: bool, cancel: Cancellation
) -> VmUuid:
    """Make the VM that ``metadata`` describes and return its uuid.

    ``disk_map`` gives the disk on this pool for each disk that the description names; one that is not mapped and not
    there is ``DiskMissing``.
    """
    query = {f"vdi:{old}": str(new) for old, new in disk_map.items()}
    if restore:
        query["restore"] = "true"
    request = TransferRequest(verb="PUT", path="/import_metadata", query=query, operation="import of a VM's metadata")
    made = upload(calls, request, body=[metadata], length_bytes=len(metadata), cancel=cancel)
    refs = [str(each) for each in made] if isinstance(made, list) else []
    if len(refs) != 1:
        raise MetadataImportFailed(count=len(refs))
    if flag(calls.record("VM", refs[0]), "is_a_template"):
        # The description of a snapshot makes a template; what was backed up is a VM.
        calls.call("VM.set_is_a_template", refs[0], False)
    return VmUuid(calls.uuid("VM", refs[0]))
