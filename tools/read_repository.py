"""Restore disks from a Holdfast repository without Holdfast.

Written from the pages in ``docs/formats`` alone, without code of the program: a proof that the pages say enough, and a
last resort for the day when nothing else is left. It only reads, a repository at rest, and checks whatever it uses.

    pip install cryptography blake3 msgpack pyrage backports.zstd       (from Python 3.14 on without the last one)
    python read_repository.py points FOLDER --key recovery.txt
    python read_repository.py restore FOLDER POINT DISK OUT --key recovery.txt
"""

import argparse
import base64
import hmac
import json
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgpack
import pyrage
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK_BYTES, LEAF_BLOCKS = 65536, 4096
FORMAT = {"format": "holdfast-repository", "version": 1, "block_bytes": BLOCK_BYTES, "leaf_blocks": LEAF_BLOCKS}
POINT, MOVED, EPOCH = 1, 5, 10  # kinds of sealed objects
DATA, PATCH, MAP = 1, 2, 3  # kinds of frames
Slot = tuple[bytes, int, bytes, int, int]  # id, place in its frame; then of the frame: its role, offset, length


class Unreadable(Exception):
    """Something is missing, damaged, or not for this key; the text names it."""


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Let every failure inside name what it is about."""
    try:
        yield
    except InvalidTag as error:
        raise Unreadable(f"{what}: its seal is broken: it was changed, or sealed with another key") from error
    except (OSError, ValueError, LookupError, TypeError, struct.error, zstd.ZstdError, pyrage.IdentityError) as error:
        raise Unreadable(f"{what}: {error}" if type(error) is ValueError else f"{what}: {error!r}") from error


def need(condition: bool, complaint: str) -> None:
    """Refuse what the format pages do not allow."""
    if not condition:
        raise ValueError(complaint)


def decode(data: bytes, encoding: int, length_max: int) -> bytes:
    """Return data as it is (encoding 0), or the content of the one zstd frame that it must be (encoding 1)."""
    if encoding == 1:
        decoder = zstd.ZstdDecompressor()
        data = decoder.decompress(data, length_max + 1)
        need(decoder.eof and not decoder.unused_data, "it is not one zstd frame of the right length")
    need(encoding in (0, 1) and len(data) <= length_max, "it is longer than it may be, or its encoding is unknown here")
    return data


def entries(node: bytes, begin: int, packs: int, count: int, code: str) -> Iterator[tuple[int, tuple[bytes, int]]]:
    """Yield index and place (pack and slot) of everything but zeros that a node of a map leads to."""
    packs_end, arrays = begin + 16 * packs, f"<{count}{code}{count}H"
    need(len(node) == packs_end + struct.calcsize(arrays), "its length is not what its counts make")
    numbers = struct.unpack_from(arrays, node, packs_end)
    slot = 0
    for index, (owner, step) in enumerate(zip(numbers[:count], numbers[count:], strict=True)):
        slot = (slot + step) % 65536
        need(owner <= packs, f"entry {index} names a pack that is not there")
        if owner > 0:
            yield index, (node[begin + 16 * (owner - 1) : begin + 16 * owner], slot)


class Repository:
    """An opened repository: its description proven, keys at hand."""

    def __init__(self, folder: Path, opener: Callable[[bytes], bytes]) -> None:
        self.folder = folder
        self.frame: tuple[Any, bytes] = None, b""  # the frame that was used last, and its content
        self.keys: dict[int, bytes] = {}
        self.moves: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # (pack, slot) -> (pack, slot)
        with naming("holdfast.json"):
            about = json.loads(self.read("holdfast.json"))
            need(about == {**about, **FORMAT}, "its format, version or sizes are unknown here")
            flags = {*about["features_read"], *(name[14:] for name in self.names("features/read"))} - {"key-epochs"}
            need(not flags, f"it has features that are unknown here: {', '.join(sorted(flags))}")
            self.id = bytes.fromhex(about["repository"])
            self.open_keys(opener)
            proof = about.pop("proof")
            text = json.dumps(about, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
            need(blake3(text, key=self.derive(0, "config")).hexdigest() == proof, "its proof is wrong: it was changed")

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        """Return an object, or a part of it."""
        with naming(name), (self.folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def names(self, prefix: str) -> list[str]:
        """List the objects below a prefix, sorted."""
        files = [path for path in (self.folder / prefix).rglob("[!.]*") if path.is_file()]
        return sorted(path.relative_to(self.folder).as_posix() for path in files)

    def pack_name(self, pack: bytes) -> str:
        """Return the name of a pack's object."""
        return f"packs/{pack.hex()[:2]}/{pack.hex()}"

    @naming("keys/")
    def open_keys(self, opener: Callable[[bytes], bytes]) -> None:
        """Take the keys of the epochs from the files that the opener opens: docs/formats/keys.md, epochs.md."""
        for name in self.names("keys"):
            with suppress(pyrage.DecryptError, Unreadable), naming(name):  # files of others, and forged ones
                holder = json.loads(opener(self.read(name)))
                need(holder["version"] in (1, 2), f"version {holder['version']} is unknown here")
                need(bytes.fromhex(holder["repository"]) == self.id, "it is of another repository")
                for epoch, text in enumerate([holder["key"], *holder.get("epochs", [])]):
                    key = {epoch: base64.b64decode(text)}
                    self.keys = key | self.keys  # it may be of an attempt to begin an epoch that did not win, so ...
                    with suppress(Unreadable):
                        self.unseal(f"epochs/{epoch:05d}", EPOCH, key)
                        self.keys |= key  # ... the key that the epoch began with takes its place
        need(bool(self.keys), "no file opens: the key is a wrong one, or its file is gone, damaged or too new")

    def derive(self, epoch: int, purpose: str, context: bytes = b"", keys: dict[int, bytes] | None = None) -> bytes:
        """Derive the key for one purpose, by HKDF-SHA-256: docs/formats/repository.md."""
        key = (keys or self.keys).get(epoch, b"")
        need(len(key) == 32, f"it is of epoch {epoch}, which this key does not open")
        info = f"holdfast/1/{purpose}/".encode() + context
        return hmac.digest(hmac.digest(self.id, key, "sha256"), info + b"\x01", "sha256")

    def unseal(self, name: str, kind: int, keys: dict[int, bytes] | None = None) -> dict[str, Any]:
        """Return the payload of a sealed object: docs/formats/repository.md."""
        with naming(name):
            data = self.read(name)
            magic, version, found, epoch, nonce = struct.unpack_from("<4sBBH16s", data)
            need((magic, version, found) == (b"HFSO", 1, kind), "it is another kind of object")
            cipher = AESGCM(self.derive(epoch, "object", nonce, keys))
            plain = cipher.decrypt(bytes(12), data[24:], data[:24] + self.id + name.encode())
            encoding, length = struct.unpack_from("<B3xI", plain)
            payload = decode(plain[8:], encoding, min(length, 1 << 30))
            need(len(payload) == length, "its payload is not as long as it says")
            fields = msgpack.unpackb(payload)
            need(kind != POINT or fields["version"] == 1, "its version is unknown here")
            return dict(fields)

    @lru_cache(64)  # noqa: B019 - there is one repository, for as long as the program runs
    def pack(self, pack: bytes) -> tuple[int, list[Slot]]:
        """Return the epoch of a pack, and what its trailer says of its slots: docs/formats/pack.md."""
        with naming(f"the trailer of {self.pack_name(pack)}"):
            tail_at = (self.folder / self.pack_name(pack)).stat().st_size - 8
            magic, tail = struct.unpack("<4sI", self.read(self.pack_name(pack), tail_at))
            epoch, begin = tail >> 21, tail_at - (tail & 0x1FFFFF)
            need(magic == b"HFPT" and begin >= 40, "the pack does not end like one")
            plain = self.open_part(pack, epoch, struct.pack("<IBBBB", 0xFFFFFFFF, 255, 0, 0, 0), begin, tail_at - begin)
            count, notes_length = struct.unpack_from("<II", plain)
            need(len(plain) == 8 + 40 * count + notes_length and count <= 16384, "its counts do not fit its length")
            rows = list(struct.iter_unpack("<32sIBBBB", plain[8 : 8 + 40 * count]))
            slots, offset = list[Slot](), 40
            while (first := len(slots)) < count:
                _, length, kind, encoding, _, blocks = rows[first]
                known = kind in (DATA, PATCH, MAP) and 1 <= blocks <= (4 if kind == DATA else 1)
                group = [(length if part == 0 else 0, kind, encoding, part, blocks) for part in range(blocks)]
                need(known and [row[1:] for row in rows[first : first + blocks]] == group, f"row {first} is wrong")
                role = struct.pack("<IBBBB", first, kind, encoding, 0, blocks)
                slots += [(rows[first + part][0], part, role, offset, length) for part in range(blocks)]
                offset += length
            need(offset <= begin, "its frames do not fit the pack")
            return epoch, slots

    def open_part(self, pack: bytes, epoch: int, role: bytes, offset: int, length: int) -> bytes:
        """Read and decrypt the frame, or the trailer, that has this role in a pack."""
        header = struct.pack("<4sHH16s16s", b"HFPK", 1, epoch, self.id, pack)
        sealed = self.read(self.pack_name(pack), offset, length)
        return AESGCM(self.derive(epoch, "pack", pack)).decrypt(role[:4] + bytes(8), sealed, header + role)

    def content(self, pack: bytes, slot: int, *kinds: int) -> bytes:
        """Return the block or the node at a place, proven by its id: docs/formats/pack.md, moved.md."""
        for _ in range(64):
            pack, slot = self.moves.get((pack, slot), (pack, slot))
        epoch, slots = self.pack(pack)
        with naming(f"slot {slot} of {self.pack_name(pack)}"):
            id_, part, role, offset, length = slots[slot]
            _, kind, encoding, _, blocks = struct.unpack("<IBBBB", role)
            need(kind in kinds, f"a frame of kind {kind} does not belong here")
            if self.frame[0] != (pack, role):
                plain = self.open_part(pack, epoch, role, offset, length)
                self.frame = (pack, role), decode(plain, encoding, blocks * BLOCK_BYTES if kind == DATA else 2 << 20)
            plain = self.frame[1]
            if kind == DATA:
                plain = plain[part * BLOCK_BYTES : (part + 1) * BLOCK_BYTES]
            elif kind == PATCH:
                base_pack, base_slot, bits = struct.unpack_from("<16sI16s", plain)
                pages = [512 * page for page in range(128) if bits[page // 8] >> page % 8 & 1]
                need(len(plain) == 36 + 512 * len(pages), "its pages do not fit its length")
                block = bytearray(self.content(base_pack, base_slot, DATA))
                for number, at in enumerate(pages):
                    block[at : at + 512] = plain[36 + 512 * number : 36 + 512 * (number + 1)]
                plain = bytes(block)
            key = self.derive(0, "node-id" if kind == MAP else "block-id")
            need(blake3(plain, key=key).digest() == id_, "its content does not have its id")
            return plain

    def blocks(self, disk: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
        """Yield offset and content of all blocks but zeros; the last may be too long: docs/formats/disk-map.md."""
        for name in self.names("moved"):  # where two differ, the one whose name sorts last counts
            self.moves |= {r[:2]: r[2:] for r in struct.iter_unpack("<16sI16sI", self.unseal(name, MOVED)["rows"])}
        root = self.content(disk["root_pack"], disk["root_slot"], MAP)
        with naming(f"the map of disk {disk['position']}"):
            need(blake3(root, key=self.derive(0, "node-id")).digest() == disk["content_hash"], "not the root it had")
            level, version, _, leaves, size, packs, leaf_blocks = struct.unpack_from("<BBHIQII", root)
            count = -(-size // BLOCK_BYTES)
            fits = (level, version, leaf_blocks, leaves) == (1, 1, LEAF_BLOCKS, -(-count // LEAF_BLOCKS))
            need(fits and size == disk["stored_size"], "its root contradicts itself or the point")
            for number, place in entries(root, 24, packs, leaves, "I"):
                leaf, first = self.content(*place, MAP), number * LEAF_BLOCKS
                head, leaf_packs = struct.unpack_from("<BBH", leaf), int.from_bytes(leaf[4:6], "little")
                need(head == (0, 1, min(LEAF_BLOCKS, count - first)), f"leaf {number} is not what belongs there")
                for index, block in entries(leaf, 8, leaf_packs, head[2], "H"):
                    yield (first + index) * BLOCK_BYTES, self.content(*block, DATA, PATCH)

    def restore(self, beginning: str, wanted: str, out: str) -> None:
        """Write a disk of a restore point to a new file."""
        with naming(f"point {beginning}, disk {wanted}, to {out}"):
            names = [name for name in self.names("points") if name.rpartition("/")[2].startswith(beginning)]
            need(len(names) == 1, f"{len(names)} points are called so")
            disks = [d for d in self.unseal(names[0], POINT)["disks"] if wanted in (d["position"], d["uuid"])]
            need(len(disks) == 1, f"{len(disks)} disks of the point are called so")
            need(not Path(out).exists(), "that file exists")
            with Path(f"{out}.unfinished").open("wb") as file:
                for offset, data in self.blocks(disks[0]):
                    file.seek(offset)
                    file.write(data)
                file.truncate(disks[0]["stored_size"])  # cuts the last block, or ends with a hole
            Path(f"{out}.unfinished").rename(out)

    def list_points(self) -> bool:
        """Print all restore points with their disks; tell whether all of them open."""
        sound = True
        for name in self.names("points"):
            try:
                point = self.unseal(name, POINT)
                disks = [f"\n    disk {d['position']}  {d['stored_size']} bytes  {d['name']!r}" for d in point["disks"]]
                text = f"taken {point['taken_at']}  VM {point['vm_name']!r}{''.join(disks)}"
            except Unreadable as error:
                sound, text = False, f"DOES NOT OPEN: {error}"
            sys.stdout.write(f"{name.rpartition('/')[2]}  {text}\n")
        return sound


@naming("the key")
def opener_of(options: argparse.Namespace) -> Callable[[bytes], bytes]:
    """Return what opens files of holders with the given secret, or raises pyrage.DecryptError."""
    if options.open:  # what is no age file opens by itself
        return lambda file: file if file[:1] == b"{" else bytes(pyrage.decrypt(file, []))
    if options.passphrase_file:
        passphrase = options.passphrase_file.read_text(encoding="utf-8").rstrip("\r\n")
        return lambda file: bytes(pyrage.passphrase.decrypt(file, passphrase))
    secret = options.key.read_bytes()
    text = "".join("".join(line.split()) for line in secret.decode().upper().splitlines() if line[:1] != "#")
    is_age = text.startswith("AGE-SECRET-KEY-")
    key = pyrage.x25519.Identity.from_str(text) if is_age else pyrage.ssh.Identity.from_buffer(secret)
    return lambda file: bytes(pyrage.decrypt(file, [key]))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["points", "restore"])
    parser.add_argument("folder", type=Path, help="the repository, or a copy of all its objects")
    parser.add_argument("what", nargs="*", metavar="POINT DISK OUT", help="id or its start; position or uuid; new file")
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--key", metavar="FILE", type=Path, help="a recovery key, or an SSH private key")
    key.add_argument("--passphrase-file", metavar="FILE", type=Path)
    key.add_argument("--open", action="store_true", help="where no secret is needed")
    options = parser.parse_args()
    if len(options.what) != (3 if options.command == "restore" else 0):
        parser.error("restore needs POINT DISK OUT, points nothing")
    try:
        repository = Repository(options.folder, opener_of(options))
        if options.what:
            repository.restore(*options.what)
        elif not repository.list_points():
            sys.exit(1)
    except Unreadable as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
