"""Who answers: the pool's certificate is pinned or verified before a byte of credentials is sent.

Invariant: every TLS connection to a pool is made by ``connect_trusted``, so no code path can skip the check.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import assert_never

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.core import mapped
from holdfast.xapi.address import AddressInvalid, PoolAddress
from holdfast.xapi.errors import (
    AuthorityFileInvalid,
    CertificateChanged,
    CertificateRefused,
    FingerprintInvalid,
    PoolUnreachable,
)

__all__ = [
    "CertificateAuthority",
    "CertificateFacts",
    "NoTls",
    "PinnedCertificate",
    "TlsTrust",
    "connect_plain",
    "connect_trusted",
    "describe_os_error",
    "interrupt",
    "normalised_fingerprint",
    "read_certificate",
]

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PinnedCertificate:
    """Only this certificate is accepted, whatever it says about itself (SHA-256 of its DER form, hex).

    ``others`` are the certificates of the pool's other hosts: when the pool has a new master, that host's certificate
    must be among them. Any spelling is taken and kept normalised; ``FingerprintInvalid`` for what is no fingerprint.
    """

    fingerprint: str
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", normalised_fingerprint(self.fingerprint))
        object.__setattr__(self, "others", tuple(normalised_fingerprint(each) for each in self.others))

    def accepts(self, fingerprint: str) -> bool:
        """Whether a certificate with that fingerprint is trusted."""
        return normalised_fingerprint(fingerprint) in (self.fingerprint, *self.others)


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """The certificate must be signed by an authority (``None``: those of the system) and name the host."""

    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class NoTls:
    """Plain http, for labs: the password and the data travel readable."""


TlsTrust = PinnedCertificate | CertificateAuthority | NoTls


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """A certificate as a person compares it before trusting it."""

    fingerprint: str
    """SHA-256, lower-case hex without separators."""
    subject: str
    issuer: str
    not_after: datetime
    pem: str

    @property
    def fingerprint_for_people(self) -> str:
        """The fingerprint in colon-separated pairs, as ``openssl x509 -fingerprint -sha256`` prints it."""
        upper = self.fingerprint.upper()
        return ":".join(upper[at : at + 2] for at in range(0, len(upper), 2))


def normalised_fingerprint(text: str) -> str:
    """Return the 64 hex digits in lower case, without colons or spaces. ``FingerprintInvalid`` for anything else."""
    digits = "".join(text.split()).replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(digits):
        raise FingerprintInvalid(text=text)
    return digits


def read_certificate(address: PoolAddress, *, timeout_s: float = 10.0) -> CertificateFacts:
    """Return what the server shows, unverified, for a person to accept on first use. ``PoolUnreachable`` otherwise."""
    if not address.is_encrypted:
        raise AddressInvalid(text=address.url, why="plain http has no certificate")
    with (
        mapped(OSError, to=lambda cause: PoolUnreachable(address=address.url, why=describe_os_error(cause))),
        socket.create_connection((address.host, address.port), timeout=timeout_s) as plain,
        _context(None).wrap_socket(plain, server_hostname=address.host) as encrypted,
    ):
        der = encrypted.getpeercert(binary_form=True)
    assert der is not None
    certificate = x509.load_der_x509_certificate(der)
    return CertificateFacts(
        fingerprint=hashlib.sha256(der).hexdigest(),
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        not_after=certificate.not_valid_after_utc,
        pem=certificate.public_bytes(Encoding.PEM).decode("ascii"),
    )


def connect_trusted(
    address: PoolAddress,
    trust: TlsTrust,
    *,
    timeout_s: float,
    opened: Callable[[socket.socket], None] = lambda _: None,
) -> socket.socket:
    """Return a connected socket, encrypted and trusted as ``trust`` says; nothing has been sent on it.

    ``opened`` is given the bare socket before it connects, so that another thread can interrupt it. Raises
    ``PoolUnreachable``, ``CertificateChanged`` or ``CertificateRefused``, and ``AuthorityFileInvalid`` before anything
    is contacted. A pinned certificate is compared before the caller can write, so a stranger never sees the password.
    """
    if address.is_encrypted == isinstance(trust, NoTls):
        raise AddressInvalid(text=address.url, why="NoTls goes with http:// and a certificate with https://")
    context = _context(trust if isinstance(trust, CertificateAuthority) else None)
    with mapped(OSError, to=lambda cause: PoolUnreachable(address=address.url, why=describe_os_error(cause))):
        plain = connect_plain(address.host, address.port, timeout_s=timeout_s, opened=opened)
    match trust:
        case NoTls():
            return plain
        case PinnedCertificate():
            encrypted = _wrapped(plain, context, address)
            _check_pin(encrypted, trust, address)
            return encrypted
        case CertificateAuthority():
            return _wrapped(plain, context, address)
        case _:
            assert_never(trust)


def connect_plain(
    host: str, port: int, *, timeout_s: float, opened: Callable[[socket.socket], None] = lambda _: None
) -> socket.socket:
    """Return a TCP connection to the first of the host's addresses that answers; OSError of the last otherwise."""
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, target in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout_s)
            opened(sock)
            sock.connect(target)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as cause:
            sock.close()
            failure = cause
    raise failure


def interrupt(sock: socket.socket) -> None:
    """Make every blocked call on the socket return. Unlike ``close`` it is safe while another thread uses it."""
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: that would switch the other thread to plain text in the middle of a record.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _wrapped(plain: socket.socket, context: ssl.SSLContext, address: PoolAddress) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(plain, server_hostname=address.host)
    except ssl.SSLCertVerificationError as cause:
        plain.close()
        raise CertificateRefused(address=address.url, why=cause.verify_message) from cause
    except OSError as cause:
        plain.close()
        raise PoolUnreachable(
            address=address.url, why=f"TLS could not be set up: {describe_os_error(cause)}"
        ) from cause


def _check_pin(encrypted: ssl.SSLSocket, trust: PinnedCertificate, address: PoolAddress) -> None:
    der = encrypted.getpeercert(binary_form=True)
    assert der is not None
    got = hashlib.sha256(der).hexdigest()
    if not trust.accepts(got):
        encrypted.close()
        raise CertificateChanged(address=address.url, expected=trust.fingerprint, got=got)


def _context(authority: CertificateAuthority | None) -> ssl.SSLContext:
    """Return a client context: verifying against ``authority``, or not at all because the caller compares a pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authority is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority.ca_file is None:
        context.load_default_certs()
    else:
        _load_authority(context, authority.ca_file)
    return context


def _load_authority(context: ssl.SSLContext, file: Path) -> None:
    def invalid(cause: BaseException) -> AuthorityFileInvalid:
        # TLS words for a file without a certificate are no help to anybody.
        why = "it holds no certificate in PEM form" if isinstance(cause, ssl.SSLError) else describe_os_error(cause)
        return AuthorityFileInvalid(path=str(file), why=why)

    with mapped(OSError, to=invalid):
        file.open("rb").close()  # a folder opens no more than a missing file does, and says so better than TLS
        context.load_verify_locations(cafile=file)


def describe_os_error(cause: BaseException) -> str:
    """Return a system or TLS error as a phrase for people."""
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
