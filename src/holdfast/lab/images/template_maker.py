"""Makes the committed templates anew: ``python -m holdfast.lab.images.template_maker``. Needs e2fsprogs.

It makes a file system whose files have blocks full of a marker, then keeps every block that is not part of a file.
Invariant: a template's files are allocated whole, in few extents, so that ``template`` can fill them.
"""

from __future__ import annotations

import tempfile
import uuid as uuids
from pathlib import Path

import numpy as np

from holdfast.core import KIB, MIB, SeededEntropy
from holdfast.lab.disks import DiskStore
from holdfast.lab.images.boot_record import BOOT_FILE_BYTES
from holdfast.lab.images.gpt import Partition, pack_gpt
from holdfast.lab.images.linux_disk import make_ext4
from holdfast.lab.images.linux_root import etc_files
from holdfast.lab.images.sparse import absorb
from holdfast.lab.images.spec import BOOT_PATH, DATA_FOLDER, DATABASE_PATH, LOG_PATH
from holdfast.lab.images.template import Template, pack_template
from holdfast.lab.images.tools import E2fsprogs
from holdfast.lab.images.volume import open_volume

__all__ = ["make_template"]

_BLOCK_BYTES = 4 * KIB
_MARKER = b"\xa5"
_FILESYSTEM_UUID = uuids.UUID("1ab00000-0000-4000-8000-000000000001")


def make_template(*, disk_bytes: int, sizes_bytes: dict[str, int], mke2fs: Path) -> Template:
    """Return a template for disks of at least ``disk_bytes`` with files of these sizes."""
    partition = Partition.filling(disk_bytes, uuid=_FILESYSTEM_UUID, name="root")
    with tempfile.TemporaryDirectory() as name, DiskStore(Path(name) / "disks", entropy=SeededEntropy(1)) as store:
        root, image = Path(name) / "root", Path(name) / "image"  # one folder for all: the image is moved, not copied
        (root / DATA_FOLDER).mkdir(parents=True)
        for path, size_bytes in sizes_bytes.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(_MARKER * size_bytes)
        with image.open("xb") as file:
            file.truncate(disk_bytes)
        make_ext4(mke2fs, image, partition=partition, uuid=_FILESYSTEM_UUID, root=root, inodes=len(sizes_bytes) + 1024)
        store.create("disk", disk_bytes)
        absorb(store, "disk", image)
        head, _ = pack_gpt([partition], size_bytes=disk_bytes, disk_uuid=_FILESYSTEM_UUID, is_bootable=True)
        store.write("disk", 0, head)
        return _strip(store, partition)


def _strip(store: DiskStore, partition: Partition) -> Template:
    """Return the blocks that are neither zeros nor part of a file."""
    blocks = partition.length_bytes // _BLOCK_BYTES
    is_content = np.zeros(blocks, dtype=np.bool_)
    for file in open_volume(store, "disk").files.values():
        for extent in file.extents:
            first = (extent.offset_bytes - partition.offset_bytes) // _BLOCK_BYTES
            is_content[first : first + -(-extent.length_bytes // _BLOCK_BYTES)] = True
    kept = []
    for extent in store.data_extents("disk", offset_bytes=partition.offset_bytes, length_bytes=partition.length_bytes):
        for offset in range(extent.offset_bytes, extent.end_bytes, _BLOCK_BYTES):
            index = (offset - partition.offset_bytes) // _BLOCK_BYTES
            if not is_content[index] and any(block := store.read("disk", offset, _BLOCK_BYTES)):
                kept.append((index, block))
    return Template(filesystem_bytes=partition.length_bytes, block_bytes=_BLOCK_BYTES, blocks=tuple(kept))


def _sizes(*, files: int, file_bytes: int, database_bytes: int, log_bytes: int) -> dict[str, int]:
    """Return the files of a template; ``file_bytes`` is the average, sizes go from half to one and a half of it."""
    sizes = dict.fromkeys(etc_files("", uuid=""), _BLOCK_BYTES)
    sizes |= {BOOT_PATH: BOOT_FILE_BYTES, DATABASE_PATH: database_bytes, LOG_PATH: log_bytes}
    folders = ("usr/bin/program", "usr/lib/library", "usr/share/doc/manual", f"{DATA_FOLDER}/media")
    for number in range(files):
        step = 2 * number * file_bytes // files // 2
        sizes[f"{folders[number % len(folders)]}-{number:04d}"] = (
            (file_bytes // 2 + step) // _BLOCK_BYTES * _BLOCK_BYTES
        )
    return sizes


def main() -> None:
    """Write both templates beside this module."""
    mke2fs = E2fsprogs.find().mke2fs
    if mke2fs is None:
        raise SystemExit("mke2fs is not installed")
    folder = Path(__file__).parent
    small = _sizes(files=32, file_bytes=512 * KIB, database_bytes=8 * MIB, log_bytes=MIB)
    large = _sizes(files=640, file_bytes=1152 * KIB, database_bytes=256 * MIB, log_bytes=8 * MIB)
    for name, disk_bytes, sizes in (("small", 64 * MIB, small), ("large", 2048 * MIB, large)):
        template = make_template(disk_bytes=disk_bytes, sizes_bytes=sizes, mke2fs=mke2fs)
        (folder / f"template-{name}.bin").write_bytes(pack_template(template))


if __name__ == "__main__":
    main()
