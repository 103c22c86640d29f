"""A server's disk: partition table, ext4 file system, real files.

Made with ``mke2fs``, which fills a file system from a folder without privileges; from a small committed template where
that tool is absent. Invariant: ``e2fsck -fn`` finds nothing to say about a fresh disk, and the same entropy gives the
same identities.
"""

from __future__ import annotations

import uuid as uuids
from pathlib import Path

from holdfast.core import KIB, Entropy
from holdfast.lab.disks import DiskStore
from holdfast.lab.images.boot_record import GuestSystem, install_boot, new_boot_file
from holdfast.lab.images.gpt import Partition, pack_gpt
from holdfast.lab.images.linux_root import write_linux_root
from holdfast.lab.images.sparse import absorb
from holdfast.lab.images.spec import BOOT_PATH, LinuxDiskSpec
from holdfast.lab.images.template import fill_from_template
from holdfast.lab.images.text import new_generator
from holdfast.lab.images.tools import E2fsprogs, run_tool

__all__ = ["fill_linux_disk", "make_ext4"]

_EXTENDED = "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
"""No discard: the tool would punch the whole file. Lazy tables: a fresh file is zeros already."""


LAB_LINUX = GuestSystem(name="Lab Linux 1", distro="lab", major="1", kernel="6.12.0")
"""What ``etc/os-release`` says, too."""


def fill_linux_disk(
    store: DiskStore, uuid: str, spec: LinuxDiskSpec, *, entropy: Entropy, tools: E2fsprogs | None = None
) -> None:
    """Fill a disk that was never written. ``ToolFailed`` or ``ImageTooSmall`` when the content does not fit."""
    size_bytes = store.size_bytes(uuid)
    tools = tools or E2fsprogs.find()
    disk_uuid, partition_uuid, filesystem_uuid = (_new_uuid(entropy) for _ in range(3))
    partition = Partition.filling(size_bytes, uuid=partition_uuid, name="root")
    head, tail = pack_gpt([partition], size_bytes=size_bytes, disk_uuid=disk_uuid, is_bootable=True)
    generator = new_generator(entropy)
    boot_file = new_boot_file(generator)
    with store.scratch() as scratch:
        if tools.mke2fs is not None:
            root, image = scratch / "root", scratch / "image"
            root.mkdir()
            write_linux_root(root, spec, uuid=str(filesystem_uuid), boot_file=boot_file, generator=generator)
            with image.open("xb") as file:
                file.truncate(size_bytes)
            make_ext4(tools.mke2fs, image, partition=partition, uuid=filesystem_uuid, root=root)
            absorb(store, uuid, image)
    store.write(uuid, 0, head)
    store.write(uuid, size_bytes - len(tail), tail)
    if tools.mke2fs is None:
        fill_from_template(store, uuid, partition, spec, boot_file=boot_file, generator=generator)
    install_boot(
        store,
        uuid,
        partition_bytes=partition.offset_bytes,
        filesystem="ext4",
        files={BOOT_PATH: boot_file},
        system=LAB_LINUX,
    )


def make_ext4(
    mke2fs: Path, image: Path, *, partition: Partition, uuid: uuids.UUID, root: Path, inodes: int | None = None
) -> None:
    """Make a file system with the files of ``root`` inside ``image``, where the partition is."""
    run_tool(
        mke2fs,
        [
            *("-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-L", "root", "-U", str(uuid)),
            *(("-N", str(inodes)) if inodes else ()),
            *("-E", f"offset={partition.offset_bytes},hash_seed={uuid},{_EXTENDED}"),
            *("-d", str(root), str(image), f"{partition.length_bytes // KIB}k"),
        ],
    )


def _new_uuid(entropy: Entropy) -> uuids.UUID:
    return uuids.UUID(bytes=entropy.token_bytes(16), version=4)
