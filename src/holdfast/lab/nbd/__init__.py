"""The lab pool's NBD server: what a host offers on port 10809 once a network has the purpose."""

from holdfast.lab.nbd.seams import NbdExport, NbdFault, NbdHooks, NbdMode, parse_export_name
from holdfast.lab.nbd.server import NBD_CONNECTIONS_MAX, NbdServer

__all__ = [
    "NBD_CONNECTIONS_MAX",
    "NbdExport",
    "NbdFault",
    "NbdHooks",
    "NbdMode",
    "NbdServer",
    "parse_export_name",
]
