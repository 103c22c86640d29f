"""The pool's HTTP handlers: disks, metadata and the database in both directions, and what a host tells about itself."""

from holdfast.lab.handlers.closed import asks_nobody, closed_door
from holdfast.lab.handlers.database import export_database, import_database
from holdfast.lab.handlers.export import export_raw_vdi
from holdfast.lab.handlers.metadata_export import export_metadata
from holdfast.lab.handlers.metadata_import import import_metadata
from holdfast.lab.handlers.raw_import import import_raw_vdi
from holdfast.lab.handlers.reports import audit_log, host_backup, host_rrd, rrd_updates, system_status, vm_rrd
from holdfast.lab.handlers.transfer import Refused, Transfer, authenticated, transfer
from holdfast.lab.handlers.vm_export import export_vm
from holdfast.lab.handlers.vm_import import import_vm

__all__ = [
    "Refused",
    "Transfer",
    "asks_nobody",
    "audit_log",
    "authenticated",
    "closed_door",
    "export_database",
    "export_metadata",
    "export_raw_vdi",
    "export_vm",
    "host_backup",
    "host_rrd",
    "import_database",
    "import_metadata",
    "import_raw_vdi",
    "import_vm",
    "rrd_updates",
    "system_status",
    "transfer",
    "vm_rrd",
]
