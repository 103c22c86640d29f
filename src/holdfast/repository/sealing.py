"""Keys of a repository, and small objects sealed with them.

Every key is derived with HKDF-SHA-256, bound to the repository's id and to one purpose: the keys of ids, names and the
description from the repository key for ever, the keys that seal from the key of an epoch (``docs/formats/epochs.md``).
Invariant: no AES-GCM key ever seals two messages under one nonce: an object has a fresh random 128-bit key context,
a pack's key seals each slot once. Nothing is sealed with a key that was replaced, as far as is known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from backports import zstd
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from holdfast.core import Entropy, ExitStatus, HoldfastError
from holdfast.model import RepositoryId, VmUuid
from holdfast.repository import layout
from holdfast.repository.layout import Encoding, ObjectKind, PackId

__all__ = ["KEY_BYTES", "EpochLost", "EpochNotHeld", "HeldKeys", "KeyOutdated", "KeyRing", "SealBroken", "sealed_epoch"]

KEY_BYTES = 32
_OBJECT_NONCE = bytes(12)


class SealBroken(Exception):
    """A sealed object does not open; the caller turns it into the error that names what the object was."""


class EpochNotHeld(SealBroken):
    """What is to be opened was sealed with a data key that is not in the ring."""

    def __init__(self, epoch: int, *, held: int) -> None:
        super().__init__(f"was sealed with the data key of epoch {epoch}; the key in use goes up to epoch {held}")
        self.epoch = epoch


class KeyOutdated(HoldfastError):
    """The data key was rotated, and the key in use did not get the new one."""

    code = "repository.key-outdated"
    exit_status = ExitStatus.REFUSED
    effect = "Nothing was changed. Restore points from before the rotation can still be read with this key."
    advice = (
        "Open the repository with a key that got the new one and add this holder again: 'holdfast repository key add'. "
        "If nobody has rotated, objects below epochs/ in the store are damaged or forged."
    )

    def __init__(self, *, held: int, in_force: int) -> None:
        super().__init__(f"the data key is in epoch {in_force}, and the key in use goes only up to epoch {held}")
        self.held, self.in_force = held, in_force


class EpochLost(HoldfastError):
    """The object that says which data key is in force is gone."""

    code = "repository.epoch-lost"
    exit_status = ExitStatus.DAMAGED
    effect = "All restore points can be read. Nothing is written: it could be sealed with a key that was replaced."
    advice = "Rotate the data key: 'holdfast repository key rotate-data' brings the object back first."

    def __init__(self, *, epoch: int) -> None:
        super().__init__(f"object {layout.EPOCHS_PREFIX}{epoch:05} is gone from the store")
        self.epoch = epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKeys:
    """The keys that a holder's file gave, and how they stand to the repository as it is."""

    keys: tuple[bytes, ...] = field(repr=False)
    """Of the epochs 0, 1, …; the first is the repository key. Those above ``epoch`` must not seal anything."""
    epoch: int = 0
    """The last of these epochs that is known to have begun."""
    attempt: str = "00000000"
    """The attempt by which it began."""
    in_force: int = 0
    """The epoch whose key seals what is new. Higher than ``epoch`` when this holder was left out."""
    is_lost: bool = False
    """The object of ``epoch`` is gone, though it was in force."""


class KeyRing:
    """All keys of one repository. Thread-safe; it only ever learns the keys of later epochs."""

    def __init__(
        self,
        keys: bytes | HeldKeys,
        *,
        repository: RepositoryId,
        learn: Callable[[], HeldKeys | None] | None = None,
    ) -> None:
        """Make the ring of these keys, or of a repository key alone.

        ``learn`` looks again what the holder's files give; it is asked when an epoch is met that is not in the ring.
        """
        held = HeldKeys(keys=(keys,)) if isinstance(keys, bytes) else keys
        assert all(len(each) == KEY_BYTES for each in held.keys)
        self.repository = repository
        self.repository_bytes = bytes.fromhex(repository)
        self._held = held
        self._learn = learn
        self._lock = threading.Lock()
        self._strange: set[int] = set()
        self.block_id_key = self.derive("block-id")
        self.node_id_key = self.derive("node-id")
        self._name_key = self.derive("name")

    @property
    def held(self) -> HeldKeys:
        """The keys themselves, for making files of key holders. Never printed, never stored in clear."""
        return self._held

    @property
    def epoch(self) -> int:
        """The epoch with whose key something new is sealed."""
        return self._held.epoch

    def derive(self, purpose: str, *, context: bytes = b"", epoch: int = 0) -> bytes:
        """Return the 256-bit key of one purpose and context; ``EpochNotHeld`` when the ring has no such epoch."""
        info = b"holdfast/1/" + purpose.encode() + b"/" + context
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=self.repository_bytes, info=info).derive(
            self._epoch_key(epoch)
        )

    def refresh(self) -> None:
        """Look again which keys there are, as far as the ring can: somebody may have rotated. Errors of the store."""
        found = None if self._learn is None else self._learn()
        with self._lock:
            self._strange.clear()
        if found is not None:
            self.adopt(found)

    def adopt(self, found: HeldKeys) -> None:
        """Take what a holder's file gives now. Files with other keys for epochs that are known are not believed."""
        with self._lock:
            known = self._held.epoch + 1
            if found.keys[:known] == self._held.keys[:known]:
                # An epoch that has begun stays begun, whatever an older state of the store says.
                self._held = replace(found, in_force=max(found.in_force, self._held.in_force))

    def check_may_seal(self) -> None:
        """Return when the newest key of the ring is the one in force. ``KeyOutdated``, ``EpochLost``."""
        held = self._held
        if held.is_lost:
            raise EpochLost(epoch=held.epoch)
        if held.epoch != held.in_force:
            raise KeyOutdated(held=held.epoch, in_force=held.in_force)

    def _epoch_key(self, epoch: int) -> bytes:
        if epoch > self._held.epoch and epoch not in self._strange:
            self.refresh()
            with self._lock:
                self._strange.add(epoch)
        keys = self._held.keys
        if epoch >= len(keys):
            raise EpochNotHeld(epoch, held=len(keys) - 1)
        return keys[epoch]

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits by which people and machines recognise the repository key; tells nothing about it."""
        return self.fingerprint_of(0)

    def fingerprint_of(self, epoch: int) -> str:
        """Return the sixteen hex digits of an epoch's key. ``EpochNotHeld``."""
        return self.derive("fingerprint", epoch=epoch)[:8].hex()

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

    def pack_cipher(self, pack: PackId, *, epoch: int = 0) -> AESGCM:
        """Return the cipher that seals the frames of one pack; ``EpochNotHeld``."""
        return AESGCM(self.derive("pack", context=pack, epoch=epoch))

    def seal_object(self, payload: bytes, *, kind: ObjectKind, key: str, entropy: Entropy) -> bytes:
        """Return an object that opens only under this repository, this kind and this object name.

        ``KeyOutdated``, ``EpochLost``: a key that was replaced must not seal anything.
        """
        self.check_may_seal()
        epoch = self.epoch
        squeezed = zstd.compress(payload, 3)
        encoding, body = (Encoding.ZSTD, squeezed) if len(squeezed) < len(payload) else (Encoding.RAW, payload)
        nonce = entropy.token_bytes(16)
        header = layout.OBJECT_HEADER.pack(layout.OBJECT_MAGIC, layout.OBJECT_VERSION, kind, epoch, nonce)
        plain = layout.OBJECT_PLAIN_HEADER.pack(encoding, len(payload)) + body
        return header + self._object_cipher(nonce, epoch).encrypt(_OBJECT_NONCE, plain, self._object_aad(header, key))

    def open_object(self, sealed: bytes, *, kind: ObjectKind, key: str) -> bytes:
        """Return the payload that ``seal_object`` took; ``SealBroken`` for anything else, with the reason."""
        header = sealed[: layout.OBJECT_HEADER.size]
        if len(header) < layout.OBJECT_HEADER.size:
            raise SealBroken(f"only {len(sealed)} bytes long")
        magic, version, found_kind, epoch, nonce = layout.OBJECT_HEADER.unpack(header)
        if magic != layout.OBJECT_MAGIC:
            raise SealBroken("does not begin as a sealed object does")
        if version != layout.OBJECT_VERSION or found_kind != kind:
            raise SealBroken(f"is of kind {found_kind}, version {version}; expected kind {kind}, version 1")
        try:
            plain = self._object_cipher(nonce, epoch).decrypt(
                _OBJECT_NONCE, sealed[layout.OBJECT_HEADER.size :], self._object_aad(header, key)
            )
        except InvalidTag:
            raise SealBroken("its seal does not match: changed, cut, or stored under another name") from None
        return _unpack_payload(plain)

    def _object_cipher(self, nonce: bytes, epoch: int) -> AESGCM:
        return AESGCM(self.derive("object", context=nonce, epoch=epoch))

    def _object_aad(self, header: bytes, key: str) -> bytes:
        return header + self.repository_bytes + key.encode()


def sealed_epoch(sealed: bytes) -> int:
    """Return the epoch in the header of a sealed object that was opened."""
    epoch: int = layout.OBJECT_HEADER.unpack_from(sealed)[3]
    return epoch


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
