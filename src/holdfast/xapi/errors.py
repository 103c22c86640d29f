"""What goes wrong between us and a pool, apart from what XAPI itself answers (see ``catalogue``).

Invariant: every class tells what happened, what it means for the data and what to do; no library error leaves this
package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.core import ExitStatus, HoldfastError, Retry

__all__ = [
    "AuthorityFileInvalid",
    "CertificateChanged",
    "CertificateRefused",
    "ExportDamaged",
    "FingerprintInvalid",
    "LoginRefused",
    "MetadataImportFailed",
    "NbdConnectionLost",
    "NbdUnavailable",
    "PoolAnswerInvalid",
    "PoolConnectionLost",
    "PoolFailure",
    "PoolUnreachable",
    "TaskOverdue",
    "TaskVanished",
    "UploadIncomplete",
    "VmAmbiguous",
    "VmUnknown",
]


class PoolUnreachable(HoldfastError):
    """No connection to the pool could be made."""

    code = "pool.unreachable"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    effect = "Nothing was sent to the pool; existing restore points are untouched."
    advice = "Check the address, that the pool's master is up, and that port 443 is open from here."

    def __init__(self, *, address: str, why: str) -> None:
        super().__init__(f"the pool at {address} cannot be reached: {why}")
        self.address, self.why = address, why


class PoolConnectionLost(HoldfastError):
    """The connection broke while the pool was working for us, so whether it finished is not known."""

    code = "pool.connection-lost"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    effect = "The run is not published; existing restore points are untouched."
    advice = (
        "Run the command again once the pool answers; what was stored is re-used, and what the interrupted call left "
        "on the pool is looked for and removed."
    )

    def __init__(self, *, address: str, operation: str, why: str) -> None:
        super().__init__(f"the connection to the pool at {address} broke during {operation}: {why}")
        self.address, self.operation, self.why = address, operation, why


class PoolAnswerInvalid(HoldfastError):
    """The server answered something that is not the pool's protocol."""

    code = "pool.answer-invalid"
    exit_status = ExitStatus.UNREACHABLE
    advice = "Check that the address is that of an XCP-ng or XenServer host, not of a proxy or another web server."

    def __init__(self, *, address: str, operation: str, why: str) -> None:
        super().__init__(f"the server at {address} answered {operation} with something unexpected: {why}")
        self.address, self.operation, self.why = address, operation, why


class LoginRefused(HoldfastError):
    """User or password is wrong."""

    code = "pool.login-refused"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was done on the pool; existing restore points are untouched."
    advice = "Check user and password; 'holdfast pool add' stores them anew."

    def __init__(self, *, address: str, user: str, why: str) -> None:
        super().__init__(f"the pool at {address} refused to log in {user!r}: {why}")
        self.address, self.user, self.why = address, user, why


class AuthorityFileInvalid(HoldfastError):
    """The file that should hold the trusted authority's certificates cannot be used."""

    code = "pool.authority-file-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was contacted."
    advice = (
        "Name a readable file with the authority's certificates in PEM form, or pin the pool's certificate instead."
    )

    def __init__(self, *, path: str, why: str) -> None:
        super().__init__(f"the certificate authority's file {path} cannot be used: {why}")
        self.path, self.why = path, why


class CertificateChanged(HoldfastError):
    """The server shows another certificate than the one that was pinned."""

    code = "pool.certificate-changed"
    exit_status = ExitStatus.REFUSED
    effect = "The password was not sent; nothing was done on the pool."
    advice = (
        "If the host's certificate was renewed or the pool has a new master, compare the fingerprint on the host's "
        "console and add the pool again; otherwise someone may be in between."
    )

    def __init__(self, *, address: str, expected: str, got: str) -> None:
        super().__init__(f"the certificate of {address} changed: expected {expected}, got {got}")
        self.address, self.expected, self.got = address, expected, got


class FingerprintInvalid(HoldfastError):
    """The text given as a certificate's fingerprint is none."""

    code = "pool.fingerprint-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was contacted."
    advice = (
        "Give what 'openssl x509 -noout -fingerprint -sha256' prints behind the equals sign on the pool's master; "
        "colons and upper case are fine."
    )

    def __init__(self, *, text: str) -> None:
        super().__init__(f"{text!r} is not a SHA-256 fingerprint: 64 hex digits")
        self.text = text


class CertificateRefused(HoldfastError):
    """The certificate is not signed by the trusted authority, has expired or names another host."""

    code = "pool.certificate-refused"
    exit_status = ExitStatus.REFUSED
    effect = "The password was not sent; nothing was done on the pool."
    advice = "Give the right CA file, use the name that stands in the certificate, or pin the certificate instead."

    def __init__(self, *, address: str, why: str) -> None:
        super().__init__(f"the certificate of {address} was not accepted: {why}")
        self.address, self.why = address, why


class VmUnknown(HoldfastError):
    """No VM has that name or uuid."""

    code = "pool.vm-unknown"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Nothing was done."

    def __init__(self, *, wanted: str, near: Sequence[str], kind: str = "VM") -> None:
        super().__init__(f"the pool has no {kind} {wanted!r}")
        self.wanted, self.kind = wanted, kind
        self.near = ", ".join(near)

    def next_step(self) -> str:
        """Name the nearest, or say where the names are."""
        if self.near:
            return f"Did you mean: {self.near}?"
        return "List what the pool has with 'holdfast vm list' or 'holdfast pool show'."


class VmAmbiguous(HoldfastError):
    """Several VMs have that name."""

    code = "pool.vm-ambiguous"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was done."

    def __init__(self, *, wanted: str, uuids: Sequence[str], kind: str = "VM") -> None:
        super().__init__(f"the pool has {len(uuids)} {kind}s named {wanted!r}")
        self.wanted, self.kind = wanted, kind
        self.uuids = ", ".join(uuids)

    def next_step(self) -> str:
        """List the uuids to choose from."""
        return f"Give the uuid instead: {self.uuids}."


class PoolFailure(HoldfastError):
    """XAPI refused or failed a call; the raw answer is kept in ``xapi_code`` and ``xapi_text``."""

    code = "pool.failure"
    xapi_codes: ClassVar[tuple[str, ...]] = ()
    """The answers that a known cause is recognised by; see ``catalogue``."""
    what = "the pool answered with an error"
    advice = "The raw answer is shown under details; XAPI's log on the pool's master (/var/log/xensource.log) has more."

    def __init__(self, *, operation: str, params: Sequence[str]) -> None:
        self.operation = operation
        self.xapi_code = params[0] if params else ""
        self.xapi_text = " | ".join(params[1:])
        raw = f"{self.xapi_code}({self.xapi_text})" if self.xapi_text else self.xapi_code
        super().__init__(f"{operation}: {self.what} [{raw}]")


class TaskVanished(HoldfastError):
    """The task that was waited for no longer exists, so its outcome is not known."""

    code = "pool.task-vanished"
    retry = Retry.LATER
    effect = "The run is not published; existing restore points are untouched."
    advice = (
        "The pool's toolstack was probably restarted, or the task ran for more than 24 hours. Run the command "
        "again; what was stored is re-used, and what the task left on the pool is looked for."
    )

    def __init__(self, *, operation: str, task: str) -> None:
        super().__init__(f"{operation}: the pool destroyed the task before it completed")
        self.operation, self.task = operation, task


class TaskOverdue(HoldfastError):
    """The task is still pending long after it should have ended."""

    code = "pool.task-overdue"
    retry = Retry.LATER
    exit_status = ExitStatus.BUSY
    effect = "The run is not published; existing restore points are untouched."
    advice = "Look at the pool's task list and at the SR it works on; run again once the task is gone."

    def __init__(self, *, operation: str, task: str, timeout_s: float) -> None:
        super().__init__(f"{operation}: the pool's task has not ended after {timeout_s:.0f} s")
        self.operation, self.task, self.timeout_s = operation, task, timeout_s


class NbdUnavailable(HoldfastError):
    """The disk cannot be read over NBD; another way is taken where there is one."""

    code = "pool.nbd-unavailable"
    retry = Retry.LATER
    effect = "Nothing was read over NBD; existing restore points are untouched."
    advice = (
        "Mark a network that reaches the hosts with purpose 'nbd' (xe network-param-add param-name=purpose "
        "param-key=nbd uuid=…) and open port 10809."
    )

    def __init__(self, *, why: str) -> None:
        super().__init__(f"NBD cannot be used: {why}")
        self.why = why


class NbdConnectionLost(HoldfastError):
    """Reading over NBD broke in the middle and could not be resumed."""

    code = "pool.nbd-connection-lost"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    effect = "The unfinished restore point is not published; what was already stored is re-used."
    advice = (
        "Run the backup again; what was stored is re-used. If it happens again, look at the network to port 10809 and "
        "the load of the control domain."
    )

    def __init__(self, *, disk: str, offset_bytes: int, attempts: int, why: str) -> None:
        super().__init__(
            f"disk {disk}: the NBD connection was lost at offset {offset_bytes}, {attempts} attempts: {why}"
        )
        self.disk, self.offset_bytes, self.attempts, self.why = disk, offset_bytes, attempts, why


class ExportDamaged(HoldfastError):
    """The pool's export of a disk is cut short, contradicts itself or carries an error page."""

    code = "pool.export-damaged"
    retry = Retry.LATER
    exit_status = ExitStatus.UNREACHABLE
    effect = "Nothing from this export is published; existing restore points are untouched."
    advice = (
        "Run the backup again; what was stored is re-used. If it happens again, look at the SR's health and at SMlog "
        "on the pool's master."
    )

    def __init__(self, *, disk: str, why: str) -> None:
        super().__init__(f"the export of disk {disk} cannot be trusted: {why}")
        self.disk, self.why = disk, why


class MetadataImportFailed(HoldfastError):
    """The pool took a VM's description without making the VM."""

    code = "pool.metadata-import-failed"
    effect = "The restored disks are there, the VM is not; the restore point is untouched."
    advice = "Restore without the pool's own metadata; the VM is then made from its saved record."

    def __init__(self, *, count: int) -> None:
        super().__init__(f"the pool made {count} VMs of a description of one")
        self.count = count


class UploadIncomplete(HoldfastError):
    """A disk was sent to the pool, and the pool does not have it as sent."""

    code = "pool.upload-incomplete"
    retry = Retry.LATER
    effect = "The disk on the pool is not usable and is removed; the restore point is untouched."
    advice = "Run the restore again; if it happens again, check free space and health of the target SR."

    def __init__(self, *, disk: str, why: str) -> None:
        super().__init__(f"the upload to disk {disk} is not complete: {why}")
        self.disk, self.why = disk, why
