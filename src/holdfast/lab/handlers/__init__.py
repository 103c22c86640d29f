"""The pool's HTTP handlers that move data: disks and metadata in both directions."""

from holdfast.lab.handlers.database import export_database, import_database
from holdfast.lab.handlers.export import export_raw_vdi
from holdfast.lab.handlers.metadata_export import export_metadata
from holdfast.lab.handlers.metadata_import import import_metadata
from holdfast.lab.handlers.raw_import import import_raw_vdi
from holdfast.lab.handlers.transfer import Refused, Transfer, authenticated, transfer
from holdfast.lab.handlers.vm_export import export_vm
from holdfast.lab.handlers.vm_import import import_vm

__all__ = [
    "Refused",
    "Transfer",
    "authenticated",
    "export_database",
    "export_metadata",
    "export_raw_vdi",
    "export_vm",
    "import_database",
    "import_metadata",
    "import_raw_vdi",
    "import_vm",
    "transfer",
]
