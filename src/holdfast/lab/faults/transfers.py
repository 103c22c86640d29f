"""Faults of transfers over HTTP: exports and imports of disks, VMs, metadata and the database.

``path`` is where the transfer goes on, such as ``/export_raw_vdi``; without it any transfer will do.
"""

from __future__ import annotations

from holdfast.lab.faults.kind import FaultKind

__all__ = ["TRANSFER_FAULTS"]

TRANSFER_FAULTS = (
    FaultKind(
        "transfer-redirected",
        "A transfer is sent with status 302 to another host, or to the same one again.",
        {"path": "", "host": ""},
    ),
    FaultKind(
        "session-ends",
        "The session ends after so many bytes of an export or import; the transfer itself goes on.",
        {"path": "", "after_bytes": 0},
    ),
    FaultKind(
        "export-cut",
        "An export's connection is cut after so many bytes; the task fails.",
        {"path": "", "after_bytes": 4096},
    ),
    FaultKind(
        "export-fails-late",
        "An export fails after so many bytes: a second HTTP response with status 500 follows inside the body.",
        {"path": "", "after_bytes": 0},
    ),
    FaultKind(
        "export-truncated",
        "An export ends early and politely, and its task says success.",
        {"path": "", "after_bytes": 4096},
    ),
    FaultKind("export-lies", "A VHD export's block table is damaged, and its task says success."),
    FaultKind(
        "export-stalls",
        "An export pauses after so many bytes.",
        {"path": "", "after_bytes": 4096, "seconds": 5.0},
    ),
    FaultKind(
        "export-slow", "An export sends no more than so many bytes a second.", {"path": "", "bytes_per_s": 1 << 20}
    ),
    FaultKind("xva-checksum-wrong", "The checksum of the n-th block of a VM's export is wrong.", {"block": 0}),
    FaultKind(
        "xva-keep-alive",
        "A VM's export has an empty member before its n-th block, as after five seconds of zeros.",
        {"block": 1},
    ),
    FaultKind(
        "import-cut",
        "An import's connection is cut after so many bytes; the task fails.",
        {"path": "", "after_bytes": 4096},
    ),
    FaultKind(
        "import-stalls",
        "An import stops reading for a while after so many bytes.",
        {"path": "", "after_bytes": 4096, "seconds": 5.0},
    ),
    FaultKind(
        "import-slow", "An import reads no more than so many bytes a second.", {"path": "", "bytes_per_s": 1 << 20}
    ),
    FaultKind("import-fails-late", "An import onto a disk reads everything and then fails with an I/O error."),
    FaultKind("import-resets", "An import succeeds, but its connection is reset instead of closed.", {"path": ""}),
)
