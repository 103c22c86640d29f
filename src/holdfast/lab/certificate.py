"""The pool's own certificate: self-signed, made once per state folder, the same for HTTPS and NBD."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.core import Clock, ExitStatus, HoldfastError, mapped
from holdfast.lab.datamodel import DateTime

__all__ = [
    "Certificate",
    "LabCertificateDamaged",
    "certificate_fields",
    "ensure_certificate",
    "new_certificate",
    "renew_certificate",
]

_VALID_DAYS = 3650


class LabCertificateDamaged(HoldfastError):
    """The certificate of the lab's folder, or its key, cannot be read, or they do not belong together."""

    code = "lab.certificate-damaged"
    exit_status = ExitStatus.DAMAGED
    effect = "No lab was started; the pool in the folder is as it was."

    def __init__(self, *, certificate_path: Path, key_path: Path, reason: str) -> None:
        super().__init__(f"{certificate_path} and {key_path} are no certificate with its key: {reason}")
        self.certificate_path, self.key_path = str(certificate_path), str(key_path)

    def next_step(self) -> str:
        """Return how to have new ones."""
        return (
            "Put both files back, or remove both: the next start makes new ones, which clients must be told to trust."
        )


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, as files and as what clients are told."""

    certificate_path: Path
    key_path: Path
    pem: str
    subject: str
    """The name that a client must find in it."""
    fingerprint: str
    """SHA-256 of the certificate in hex, as a client pins it."""

    def server_context(self) -> ssl.SSLContext:
        """Return the TLS settings of a host: TLS 1.2 or newer, this certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate_path, self.key_path)
        return context


def ensure_certificate(folder: Path, *, name: str, addresses: Sequence[str], clock: Clock) -> Certificate:
    """Return the folder's certificate for these addresses; it is made when there is none.

    ``LabCertificateDamaged`` when the files are no good.
    """
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    if not (certificate_path.exists() and key_path.exists()):
        _make(certificate_path, key_path, name=name, addresses=addresses, clock=clock)

    def damaged(cause: BaseException) -> LabCertificateDamaged:
        return LabCertificateDamaged(certificate_path=certificate_path, key_path=key_path, reason=str(cause))

    with mapped(ValueError, ssl.SSLError, to=damaged):
        pem = certificate_path.read_text(encoding="ascii")
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        certificate = Certificate(certificate_path, key_path, pem, name, fingerprint)
        certificate.server_context()
    return certificate


def renew_certificate(folder: Path, *, name: str, addresses: Sequence[str], clock: Clock) -> Certificate:
    """Return a new certificate in place of the folder's own. A crash in between leaves none, and the next start makes
    one."""
    for path in (folder / "certificate.pem", folder / "key.pem"):
        path.unlink(missing_ok=True)
    return ensure_certificate(folder, name=name, addresses=addresses, clock=clock)


def _make(certificate_path: Path, key_path: Path, *, name: str, addresses: Sequence[str], clock: Clock) -> None:
    certificate, key = new_certificate(name=name, addresses=addresses, clock=clock)
    for path, content in ((key_path, key), (certificate_path, certificate)):
        path.touch(mode=0o600)
        path.write_bytes(content)


def new_certificate(*, name: str, addresses: Sequence[str], clock: Clock) -> tuple[bytes, bytes]:
    """Return a fresh self-signed certificate and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = clock.now()
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    names.extend(x509.IPAddress(ipaddress.ip_address(address)) for address in dict.fromkeys(addresses))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), encoded_key


def certificate_fields(certificate: x509.Certificate) -> dict[str, object]:
    """Return what a record tells about a certificate: its validity and its fingerprints."""
    sha256 = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    return {
        "not_before": DateTime.of(certificate.not_valid_before_utc),
        "not_after": DateTime.of(certificate.not_valid_after_utc),
        "fingerprint": sha256,
        "fingerprint_sha256": sha256,
        # A pool tells this one for people to compare; nothing is trusted because of it.
        "fingerprint_sha1": certificate.fingerprint(hashes.SHA1()).hex(":").upper(),
    }
