"""Nothing is sent to a server that is not the one that was trusted."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from holdfast.core import ExitStatus, Secret
from holdfast.xapi import (
    AddressInvalid,
    CertificateAuthority,
    CertificateChanged,
    CertificateRefused,
    NoTls,
    PinnedCertificate,
    PoolAddress,
    PoolUnreachable,
    TlsTrust,
    read_certificate,
)
from holdfast.xapi.errors import AuthorityFileInvalid, FingerprintInvalid
from holdfast.xapi.tls import connect_trusted

_NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Identity:
    """A self-signed certificate and its key, in a file each server can load."""

    pem: str
    fingerprint: str
    file: Path


def make_identity(folder: Path, *, name: str = "pool.example", days: int = 30) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - datetime.timedelta(days=60))
        .not_valid_after(_NOW + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM).decode()
    file = folder / f"{name}.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem.encode())
    return Identity(pem, hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(), file)


@contextlib.contextmanager
def tls_server(identity: Identity) -> Iterator[tuple[PoolAddress, list[bytes]]]:
    """Serve handshakes; what a client sends after one is written down."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.file)
    listener = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as client:
                    client.settimeout(2)
                    received.append(client.recv(100))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield PoolAddress(scheme="https", host="127.0.0.1", port=listener.getsockname()[1]), received
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(2)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("tls"))


def _try(address: PoolAddress, trust: TlsTrust) -> None:
    connect_trusted(address, trust, timeout_s=2).close()


def test_the_certificate_is_shown_for_a_person_to_compare(identity: Identity) -> None:
    with tls_server(identity) as (address, _):
        facts = read_certificate(address, timeout_s=2)
    assert facts.fingerprint == identity.fingerprint
    assert facts.subject == facts.issuer == "CN=pool.example"
    assert facts.pem == identity.pem
    assert facts.fingerprint_for_people.replace(":", "").lower() == facts.fingerprint
    assert facts.not_after > _NOW


def test_the_pinned_certificate_is_accepted_in_any_spelling(identity: Identity) -> None:
    accepted = (
        PinnedCertificate(identity.fingerprint),
        PinnedCertificate(identity.fingerprint.upper()),
        PinnedCertificate("00" * 32, others=(identity.fingerprint,)),
    )
    with tls_server(identity) as (address, _):
        for trust in accepted:
            with connect_trusted(address, trust, timeout_s=2) as connected:
                assert isinstance(connected, ssl.SSLSocket)


def test_a_fingerprint_is_one_value_in_every_spelling() -> None:
    spelled = ":".join(["AB"] * 32)
    assert PinnedCertificate(spelled, others=(f" {spelled}\n",)) == PinnedCertificate("ab" * 32, others=("ab" * 32,))
    assert PinnedCertificate("ab" * 32).accepts(spelled)


@pytest.mark.parametrize("text", ["", "yes", "00" * 20, "00" * 33, "0" * 63 + "g", "sha256:" + "00" * 32])
def test_what_is_no_fingerprint_is_a_mistake_of_the_caller_not_a_changed_certificate(text: str) -> None:
    with pytest.raises(FingerprintInvalid, match="not a SHA-256 fingerprint: 64 hex digits") as caught:
        PinnedCertificate(text)
    assert caught.value.exit_status is ExitStatus.USAGE
    with pytest.raises(FingerprintInvalid):
        PinnedCertificate("00" * 32, others=(text,))


def test_another_certificate_is_refused_and_nothing_was_sent(identity: Identity) -> None:
    with tls_server(identity) as (address, received), pytest.raises(CertificateChanged) as caught:
        _try(address, PinnedCertificate("11" * 32))
    assert caught.value.expected == "11" * 32
    assert caught.value.got == identity.fingerprint
    assert b"".join(received) == b""


def test_an_authority_accepts_what_it_signed_and_refuses_what_it_did_not(identity: Identity) -> None:
    with tls_server(identity) as (address, _):
        _try(address, CertificateAuthority(identity.file))
        with pytest.raises(CertificateRefused):
            _try(address, CertificateAuthority())


def test_an_expired_certificate_is_refused_by_an_authority(tmp_path: Path) -> None:
    expired = make_identity(tmp_path, days=-1)
    with tls_server(expired) as (address, _), pytest.raises(CertificateRefused, match="expired"):
        _try(address, CertificateAuthority(expired.file))


@pytest.mark.parametrize("content", [None, b"", b"no certificate\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_an_authority_that_is_no_file_of_certificates_is_refused_before_anything_is_contacted(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_bytes(content)
    contacted: list[socket.socket] = []
    address = PoolAddress(scheme="https", host="127.0.0.1", port=1)
    for trusted in (file, tmp_path):
        with pytest.raises(AuthorityFileInvalid) as caught:
            connect_trusted(address, CertificateAuthority(trusted), timeout_s=2, opened=contacted.append)
        assert str(trusted) in str(caught.value)
        assert caught.value.exit_status is ExitStatus.USAGE
    assert contacted == []


@pytest.mark.parametrize(
    ("scheme", "trust"), [("http", PinnedCertificate("00" * 32)), ("http", CertificateAuthority()), ("https", NoTls())]
)
def test_trust_and_scheme_must_fit(scheme: str, trust: TlsTrust) -> None:
    with pytest.raises(AddressInvalid):
        _try(PoolAddress(scheme=scheme, host="127.0.0.1", port=1), trust)


def test_a_server_without_tls_is_unreachable_not_a_crash() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = PoolAddress(scheme="https", host="127.0.0.1", port=listener.getsockname()[1])

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(PoolUnreachable):
            read_certificate(address, timeout_s=2)


def test_secrets_do_not_show_in_credentials() -> None:
    from holdfast.xapi import Credentials

    assert "hunter2" not in repr(Credentials(user="root", password=Secret("hunter2")))
