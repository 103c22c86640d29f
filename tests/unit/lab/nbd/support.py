"""A server over a disk in memory, and a client that speaks raw bytes."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.core import MIB
from holdfast.lab.nbd import NbdExport, NbdHooks, NbdMode, NbdServer, parse_export_name

SESSION = "OpaqueRef:5e551011-0000-4000-8000-000000000000"
UUID = "74f2270d-ac9c-4690-9745-a4c9238f09dc"
NAME = f"/{UUID}?session_id={SESSION}"

# The disk of the recording: a word repeated, a hole, and bytes that repeat nowhere.
CONTENT = b"nbd0" * 262144 + bytes(MIB) + hashlib.shake_256(b"tail").digest(65536) + bytes(2 * MIB - 65536)

GREETING_HEX = "4e42444d4147494349484156454f50540001"


@dataclass
class Export:
    """A disk in memory that counts how often it was closed."""

    content: bytes = CONTENT
    closed: threading.Event = field(default_factory=threading.Event)
    closes: int = 0
    fails: bool = False

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def read_into(self, offset_bytes: int, view: memoryview) -> None:
        if self.fails:
            raise OSError("the storage is gone")
        view[:] = self.content[offset_bytes : offset_bytes + len(view)]

    def close(self) -> None:
        self.closes += 1
        self.closed.set()


@dataclass
class Pool:
    """Opens a fresh export for each good name and remembers it."""

    exports: list[Export] = field(default_factory=list)
    fails: bool = False

    def resolve(self, name: str) -> NbdExport | None:
        if parse_export_name(name) != (UUID, SESSION):
            return None
        self.exports.append(Export(fails=self.fails))
        return self.exports[-1]


class Client:
    """Sends and receives raw bytes; every wait ends after some seconds."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket: socket.socket = socket.create_connection(address, timeout=10)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take(self, length_bytes: int) -> bytes:
        """Return that many bytes, fewer when the server hung up before."""
        data = b""
        while len(data) < length_bytes:
            try:
                part = self.socket.recv(length_bytes - len(data))
            except (ConnectionResetError, ssl.SSLError):
                break
            if not part:
                break
            data += part
        return data

    def is_over(self) -> bool:
        return self.take(1) == b""

    def greet(self, *, flags: int = 1) -> None:
        assert self.take(18).hex() == GREETING_HEX
        self.send(struct.pack(">I", flags))

    def option(self, number: int, data: bytes = b"") -> None:
        self.send(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)

    def ask(self, number: int, data: bytes = b"") -> int:
        """Send an option and return the number of the reply."""
        self.option(number, data)
        magic, option, reply, length_bytes = struct.unpack(">QIII", self.take(20))
        assert (magic, option, length_bytes) == (0x0003E889045565A9, number, 0)
        return int(reply)

    def open(self, name: str = NAME) -> bytes:
        self.option(1, name.encode())
        return self.take(134)

    def command(self, kind: int, offset: int, length: int, *, handle: int = 1, data: bytes = b"") -> None:
        self.send(struct.pack(">IIQQI", 0x25609513, kind, handle, offset, length) + data)

    def answer(self) -> tuple[int, int]:
        """Return error and handle of a reply."""
        magic, error, handle = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698
        return error, handle

    def start_tls(self, context: ssl.SSLContext | None = None, *, server_name: str | None = None) -> None:
        assert self.ask(5) == 1
        self.socket = (context or trusting_context()).wrap_socket(self.socket, server_hostname=server_name)


def trusting_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@cache
def certificate_pem() -> tuple[bytes, bytes]:
    """Return a self-signed certificate and its key; elliptic, because RSA keys take long to make."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab-host.example")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    names = [x509.DNSName("lab-host.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


@cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.write_bytes(b"".join(certificate_pem()))
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def serving(
    mode: NbdMode | Callable[[], NbdMode] = NbdMode.PLAIN, *, pool: Pool | None = None, hooks: NbdHooks | None = None
) -> Iterator[NbdServer]:
    """Run a server on a free port of this machine."""
    server = NbdServer(
        ("127.0.0.1", 0),
        ssl_context=server_context(),
        mode=mode if callable(mode) else lambda: mode,
        resolve=(pool or Pool()).resolve,
        hooks=hooks,
    )
    with server:
        yield server
