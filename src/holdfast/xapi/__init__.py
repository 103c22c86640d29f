"""The pool client: control over XML-RPC, change information, disks over NBD or export streams, restore."""

from holdfast.xapi.address import AddressInvalid, Credentials, PoolAddress
from holdfast.xapi.client import PoolClient, open_pool
from holdfast.xapi.errors import (
    CertificateChanged,
    CertificateRefused,
    ExportDamaged,
    LoginRefused,
    NbdConnectionLost,
    NbdUnavailable,
    PoolAnswerInvalid,
    PoolConnectionLost,
    PoolFailure,
    PoolUnreachable,
    TaskVanished,
    UploadIncomplete,
    VmAmbiguous,
    VmUnknown,
)
from holdfast.xapi.inventory import Inventory
from holdfast.xapi.tls import (
    CertificateAuthority,
    CertificateFacts,
    NoTls,
    PinnedCertificate,
    TlsTrust,
    read_certificate,
)
from holdfast.xapi.values import CbtState, NbdServer, ReadPlan, ReadTransport, Tagged, TaggedKind, VmSnapshot

__all__ = [
    "AddressInvalid",
    "CbtState",
    "CertificateAuthority",
    "CertificateChanged",
    "CertificateFacts",
    "CertificateRefused",
    "Credentials",
    "ExportDamaged",
    "Inventory",
    "LoginRefused",
    "NbdConnectionLost",
    "NbdServer",
    "NbdUnavailable",
    "NoTls",
    "PinnedCertificate",
    "PoolAddress",
    "PoolAnswerInvalid",
    "PoolClient",
    "PoolConnectionLost",
    "PoolFailure",
    "PoolUnreachable",
    "ReadPlan",
    "ReadTransport",
    "Tagged",
    "TaggedKind",
    "TaskVanished",
    "TlsTrust",
    "UploadIncomplete",
    "VmAmbiguous",
    "VmSnapshot",
    "VmUnknown",
    "open_pool",
    "read_certificate",
]
