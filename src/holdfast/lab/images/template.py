"""A prepared ext4 file system for machines without e2fsprogs: its structures are committed, its files are filled here.

The package carries file systems made by ``template_maker`` whose files have all their blocks but no bytes. Writing into
those blocks leaves every structure as it is. Invariant: what was clean to ``e2fsck`` when it was made stays clean.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import numpy as np

from holdfast.core import ExitStatus, HoldfastError
from holdfast.lab.disks import DiskStore
from holdfast.lab.images.database import write_database
from holdfast.lab.images.gpt import Partition
from holdfast.lab.images.linux_root import etc_files, new_log
from holdfast.lab.images.machine import iter_machine_files
from holdfast.lab.images.sparse import pieces_of
from holdfast.lab.images.spec import BOOT_PATH, DATABASE_PATH, LOG_PATH, LinuxDiskSpec
from holdfast.lab.images.text import Prose, noise
from holdfast.lab.images.volume import PlacedFile, Volume, open_volume

__all__ = ["TEMPLATES", "ImageTooSmall", "Template", "fill_from_template", "pack_template", "read_template"]

TEMPLATES = ("template-large.bin", "template-small.bin")
"""From large to small; a disk takes the first that fits."""

_MAGIC = b"LABTPL01"
_HEAD = struct.Struct(">8sQII")
_TEMPLATE_BYTES_MAX = 64 << 20
_PIECE_BYTES = 1 << 20


class ImageTooSmall(HoldfastError):
    """The disk cannot hold the smallest file system that the lab can make here."""

    code = "lab.image-too-small"
    exit_status = ExitStatus.USAGE
    effect = "The lab's disk was not made."
    advice = "Choose a disk of at least 64 MiB, or install e2fsprogs."

    def __init__(self, *, disk: str, needed_bytes: int, partition_bytes: int) -> None:
        super().__init__(f"lab disk {disk}: {partition_bytes} bytes for a file system that needs {needed_bytes}")
        self.disk, self.needed_bytes, self.partition_bytes = disk, needed_bytes, partition_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The blocks of a file system that are not file contents."""

    filesystem_bytes: int
    block_bytes: int
    blocks: tuple[tuple[int, bytes], ...]


def pack_template(template: Template) -> bytes:
    """Return the template as it is committed."""
    indexes = struct.pack(f">{len(template.blocks)}I", *(index for index, _ in template.blocks))
    head = _HEAD.pack(_MAGIC, template.filesystem_bytes, template.block_bytes, len(template.blocks))
    return zlib.compress(head + indexes + b"".join(block for _, block in template.blocks), 9)


def read_template(data: bytes) -> Template:
    """Return a committed template; it is part of the program, so damage is our mistake."""
    plain = zlib.decompressobj().decompress(data, _TEMPLATE_BYTES_MAX)
    magic, filesystem_bytes, block_bytes, count = _HEAD.unpack_from(plain)
    assert magic == _MAGIC
    indexes = struct.unpack_from(f">{count}I", plain, _HEAD.size)
    start = _HEAD.size + 4 * count
    assert len(plain) == start + count * block_bytes
    blocks = ((index, plain[start + n * block_bytes :][:block_bytes]) for n, index in enumerate(indexes))
    return Template(filesystem_bytes=filesystem_bytes, block_bytes=block_bytes, blocks=tuple(blocks))


def fill_from_template(
    store: DiskStore,
    uuid: str,
    partition: Partition,
    spec: LinuxDiskSpec,
    *,
    boot_file: bytes,
    generator: np.random.Generator,
) -> None:
    """Put a file system into the partition, which the disk's table already names, and fill its files."""
    template = _choose(partition.length_bytes, uuid=uuid)
    for index, block in template.blocks:
        store.write(uuid, partition.offset_bytes + index * template.block_bytes, block)
    volume = open_volume(store, uuid)
    special = {
        LOG_PATH: new_log(volume.files[LOG_PATH].size_bytes),
        BOOT_PATH: boot_file,
    }
    for path, content in etc_files(spec.hostname, uuid="00000000-0000-0000-0000-000000000000").items():
        special[path] = content
    for path, content in special.items():
        file = volume.files[path]
        volume.write(file, 0, content.ljust(file.size_bytes, b"\n")[: file.size_bytes])
    _fill_database(store, volume, spec, generator=generator)
    others = [file for path, file in sorted(volume.files.items()) if path not in special and path != DATABASE_PATH]
    _fill_files(volume, others, total_bytes=spec.files_bytes, generator=generator)


def _choose(partition_bytes: int, *, uuid: str) -> Template:
    needed_bytes = 0
    for name in TEMPLATES:
        template = read_template(resources.files(__package__).joinpath(name).read_bytes())
        if template.filesystem_bytes <= partition_bytes:
            return template
        needed_bytes = template.filesystem_bytes
    raise ImageTooSmall(disk=uuid, needed_bytes=needed_bytes, partition_bytes=partition_bytes)


def _fill_database(store: DiskStore, volume: Volume, spec: LinuxDiskSpec, *, generator: np.random.Generator) -> None:
    file = volume.files[DATABASE_PATH]
    with store.scratch() as scratch:
        path = scratch / "database"
        write_database(path, min(spec.database_bytes, file.size_bytes), generator=generator)
        for offset, piece in pieces_of(path):
            volume.write(file, offset, piece)


def _fill_files(volume: Volume, files: list[PlacedFile], *, total_bytes: int, generator: np.random.Generator) -> None:
    """Fill files one after the other with what this machine's programs and documents hold."""
    contents = _contents(total_bytes, generator=generator)
    buffer = b""
    for file in files:
        for offset in range(0, file.size_bytes, _PIECE_BYTES):
            wanted_bytes = min(_PIECE_BYTES, file.size_bytes - offset)
            while len(buffer) < wanted_bytes:
                following = next(contents, None)
                if following is None:
                    break
                buffer += following
            if not buffer:
                return
            volume.write(file, offset, buffer[:wanted_bytes])
            buffer = buffer[wanted_bytes:]


def _contents(total_bytes: int, *, generator: np.random.Generator) -> Iterator[bytes]:
    left_bytes = total_bytes
    for file in iter_machine_files(total_bytes):
        try:
            content = file.source.read_bytes()[:left_bytes]
        except OSError:
            continue  # a package manager may be at work on this machine
        left_bytes -= len(content)
        yield content
    prose = Prose(generator, corpus_bytes=max(left_bytes, _PIECE_BYTES)) if left_bytes > 0 else None
    while prose is not None and left_bytes > 0:
        length_bytes = min(_PIECE_BYTES, left_bytes)
        yield prose.text(length_bytes // 2).encode() + noise(generator, length_bytes - length_bytes // 2)
        left_bytes -= length_bytes
