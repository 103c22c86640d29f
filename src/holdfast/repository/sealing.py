"""Keys of a repository, and small objects sealed with them.

Every key is derived from the one repository key with HKDF-SHA-256, bound to the repository's id and to one purpose.
Invariant: no AES-GCM key ever seals two messages under one nonce: an object has a fresh random 128-bit key context,
a pack's key seals each slot once.
"""

from __future__ import annotations

from backports import zstd
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast.core import Entropy
from holdfast.model import RepositoryId, VmUuid
from holdfast.repository import layout
from holdfast.repository.layout import Encoding, ObjectKind, PackId

__all__ = ["KEY_BYTES", "KeyRing", "SealBroken"]

KEY_BYTES = 32
_OBJECT_NONCE = bytes(12)


class SealBroken(Exception):
    """A sealed object does not open; the caller turns it into the error that names what the object was."""


class KeyRing:
    """All keys of one repository. Thread-safe; holds nothing that changes."""

    def __init__(self, repository_key: bytes, *, repository: RepositoryId) -> None:
        assert len(repository_key) == KEY_BYTES
        self.repository = repository
        self.repository_bytes = bytes.fromhex(repository)
        self._repository_key = repository_key
        self.block_id_key = self.derive("block-id")
        self.node_id_key = self.derive("node-id")
        self._name_key = self.derive("name")

    def derive(self, purpose: str, *, context: bytes = b"") -> bytes:
        """Return the 256-bit key of one purpose and context."""
        info = b"holdfast/1/" + purpose.encode() + b"/" + context
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=self.repository_bytes, info=info).derive(
            self._repository_key
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits by which people and machines recognise the repository key; tells nothing about it."""
        return self.derive("fingerprint")[:8].hex()

    def config_mac(self, canonical: bytes) -> str:
        """Return the proof, in hex, that whoever wrote this clear text knew the repository key."""
        return blake3(canonical, key=self.derive("config")).hexdigest()

    def vm_folder(self, vm: VmUuid) -> str:
        """Return the name under which a VM's points are filed: says nothing without the key."""
        return blake3(b"vm\0" + vm.encode(), key=self._name_key).hexdigest(length=16)

    def point_suffix(self, *, run: str, vm: VmUuid, attempt: int) -> str:
        """Return the last eight digits of a point's id: the same for the same run and VM, so a publication repeats."""
        text = f"point\0{run}\0{vm}\0{attempt}"
        return blake3(text.encode(), key=self._name_key).hexdigest(length=4)

    def pack_cipher(self, pack: PackId) -> AESGCM:
        """Return the cipher that seals the frames of one pack."""
        return AESGCM(self.derive("pack", context=pack))

    def seal_object(self, payload: bytes, *, kind: ObjectKind, key: str, entropy: Entropy) -> bytes:
        """Return an object that opens only under this repository, this kind and this object name."""
        squeezed = zstd.compress(payload, 3)
        encoding, body = (Encoding.ZSTD, squeezed) if len(squeezed) < len(payload) else (Encoding.RAW, payload)
        nonce = entropy.token_bytes(16)
        header = layout.OBJECT_HEADER.pack(layout.OBJECT_MAGIC, layout.OBJECT_VERSION, kind, 0, nonce)
        plain = layout.OBJECT_PLAIN_HEADER.pack(encoding, len(payload)) + body
        return header + self._object_cipher(nonce).encrypt(_OBJECT_NONCE, plain, self._object_aad(header, key))

    def open_object(self, sealed: bytes, *, kind: ObjectKind, key: str) -> bytes:
        """Return the payload that ``seal_object`` took; ``SealBroken`` for anything else, with the reason."""
        header = sealed[: layout.OBJECT_HEADER.size]
        if len(header) < layout.OBJECT_HEADER.size:
            raise SealBroken(f"only {len(sealed)} bytes long")
        magic, version, found_kind, _, nonce = layout.OBJECT_HEADER.unpack(header)
        if magic != layout.OBJECT_MAGIC:
            raise SealBroken("does not begin as a sealed object does")
        if version != layout.OBJECT_VERSION or found_kind != kind:
            raise SealBroken(f"is of kind {found_kind}, version {version}; expected kind {kind}, version 1")
        try:
            plain = self._object_cipher(nonce).decrypt(
                _OBJECT_NONCE, sealed[layout.OBJECT_HEADER.size :], self._object_aad(header, key)
            )
        except InvalidTag:
            raise SealBroken("its seal does not match: changed, cut, or stored under another name") from None
        return _unpack_payload(plain)

    def _object_cipher(self, nonce: bytes) -> AESGCM:
        return AESGCM(self.derive("object", context=nonce))

    def _object_aad(self, header: bytes, key: str) -> bytes:
        return header + self.repository_bytes + key.encode()


def _unpack_payload(plain: bytes) -> bytes:
    if len(plain) < layout.OBJECT_PLAIN_HEADER.size:
        raise SealBroken("is too short inside")
    encoding, length_bytes = layout.OBJECT_PLAIN_HEADER.unpack_from(plain)
    body = plain[layout.OBJECT_PLAIN_HEADER.size :]
    if length_bytes > layout.OBJECT_BYTES_MAX:
        raise SealBroken(f"claims {length_bytes} bytes")
    if encoding == Encoding.RAW:
        payload = body
    elif encoding == Encoding.ZSTD:
        try:
            payload = zstd.ZstdDecompressor().decompress(body, length_bytes)
        except zstd.ZstdError:
            raise SealBroken("does not decompress") from None
    else:
        raise SealBroken(f"uses the unknown encoding {encoding}")
    if len(payload) != length_bytes:
        raise SealBroken("decompresses to another length than it says")
    return payload
