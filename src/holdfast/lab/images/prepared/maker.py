"""Makes the committed file systems anew: ``python -m holdfast.lab.images.prepared.maker``, as root.

Needs the tools of every file system (Debian: e2fsprogs xfsprogs btrfs-progs ntfs-3g dosfstools mtools) and a kernel
that mounts XFS, btrfs and FUSE. Every sector of every file is written with a mark that says which it is; the marks are
then found in the image, which tells the places of all files without knowledge of any file system. Invariant: a file
system whose files are not found whole is not committed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from holdfast.core import GIB, MIB, SECTOR_BYTES, TIB
from holdfast.lab.images.prepared.layout import PREPARED_BLOCK_BYTES, PreparedFile, PreparedFilesystem, pack_prepared
from holdfast.lab.images.prepared.trees import data_tree, esp_tree, server_tree, windows_tree
from holdfast.lab.images.sparse import pieces_of
from holdfast.lab.images.superblock import FilesystemKind
from holdfast.lab.images.tools import find_tool, run_tool
from holdfast.model import Extent

__all__ = ["make_prepared"]

_MARK = 0x4C41424D41524B21
_MARK_WORDS = SECTOR_BYTES // 8
_UUID = "1ab00000-0000-4000-8000-00000000000"

Populate = Callable[[Path, Path], None]
"""Makes a file system with the files of the second path inside the image at the first."""


def make_prepared(kind: FilesystemKind, tree: dict[str, int], *, size_bytes: int) -> PreparedFilesystem:
    """Return a file system of that kind and size with those files."""
    with tempfile.TemporaryDirectory() as name:
        root, image = Path(name) / "root", Path(name) / "image"
        for number, (path, length_bytes) in enumerate(tree.items()):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(_marks(number, length_bytes))
        with image.open("xb") as file:
            file.truncate(size_bytes)
        _POPULATE[kind](image, root)
        return _strip(image, kind, tree, size_bytes=size_bytes)


def _marks(number: int, length_bytes: int) -> bytes:
    sectors = np.arange(length_bytes // SECTOR_BYTES, dtype=">u8") + (number << 32)
    marks = np.empty((len(sectors), _MARK_WORDS), dtype=">u8")
    marks[:, 0::2], marks[:, 1::2] = _MARK, sectors[:, None]
    return marks.tobytes()


def _strip(image: Path, kind: FilesystemKind, tree: dict[str, int], *, size_bytes: int) -> PreparedFilesystem:
    places: dict[int, dict[int, int]] = {number: {} for number in range(len(tree))}
    blocks: list[tuple[int, bytes]] = []
    for offset, piece in pieces_of(image):
        words = np.frombuffer(piece, dtype=">u8").reshape(-1, _MARK_WORDS).copy()
        is_content = (words[:, 0] == _MARK) & (words[:, -2] == _MARK)
        for sector in np.flatnonzero(is_content).tolist():
            number, within = divmod(int(words[sector, 1]), 1 << 32)
            places[number][within] = offset + sector * SECTOR_BYTES
        words[is_content] = 0
        rest = words.tobytes()
        for low in range(0, len(rest), PREPARED_BLOCK_BYTES):
            block = rest[low : low + PREPARED_BLOCK_BYTES]
            if any(block):
                blocks.append(((offset + low) // PREPARED_BLOCK_BYTES, block))
    files = [
        PreparedFile(path=path, size_bytes=length, extents=_extents(places[number], length))
        for number, (path, length) in enumerate(tree.items())
    ]
    return PreparedFilesystem(kind=kind, size_bytes=size_bytes, files=tuple(files), blocks=tuple(blocks))


def _extents(places: dict[int, int], length_bytes: int) -> tuple[Extent, ...]:
    assert len(places) == length_bytes // SECTOR_BYTES, "a file lies in the file system's own structures"
    extents: list[Extent] = []
    for _, offset in sorted(places.items()):
        if extents and extents[-1].end_bytes == offset:
            last = extents.pop()
            offset, length = last.offset_bytes, last.length_bytes + SECTOR_BYTES
        else:
            length = SECTOR_BYTES
        extents.append(Extent(offset_bytes=offset, length_bytes=length))
    return tuple(extents)


def _run(name: str, *arguments: str) -> None:
    tool = find_tool(name)
    if tool is None:
        raise SystemExit(f"{name} is not installed")
    run_tool(tool, arguments)


def _populate_ext4(image: Path, root: Path) -> None:
    extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-N", "4096", "-L", "root",
         "-U", f"{_UUID}2", "-E", f"hash_seed={_UUID}2,{extended}", "-d", str(root), str(image))  # fmt: skip


def _populate_xfs(image: Path, root: Path) -> None:
    _run("mkfs.xfs", "-q", "-L", "root", "-m", f"uuid={_UUID}3", str(image))
    _copy_mounted(image, root, "mount", "-o", "loop,nouuid")


def _populate_btrfs(image: Path, root: Path) -> None:
    """Without checksums of data: whoever fills the files could not keep them."""
    _run("mkfs.btrfs", "-q", "-L", "root", "-U", f"{_UUID}4", "-m", "single", "-d", "single", str(image))
    _copy_mounted(image, root, "mount", "-o", "loop,nodatasum")


def _populate_ntfs(image: Path, root: Path) -> None:
    _run("mkntfs", "-Q", "-F", "-s", "512", "-p", "2048", "-H", "255", "-S", "63", "-L", "Windows", str(image))
    _copy_mounted(image, root, "ntfs-3g")


def _populate_vfat(image: Path, root: Path) -> None:
    _run("mkfs.vfat", "-F", "32", "-s", "8", "-n", "ESP", "-i", "1AB00006", str(image))
    _run("mcopy", "-i", str(image), "-s", *(str(path) for path in sorted(root.iterdir())), "::")


def _copy_mounted(image: Path, root: Path, tool: str, *options: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        _run(tool, *options, str(image), place)
        try:
            _run("cp", "-r", "--sparse=never", *(str(path) for path in sorted(root.iterdir())), place)
        finally:
            _run("umount", place)


_POPULATE: dict[FilesystemKind, Populate] = {
    "btrfs": _populate_btrfs,
    "ext4": _populate_ext4,
    "ntfs": _populate_ntfs,
    "vfat": _populate_vfat,
    "xfs": _populate_xfs,
}

_ALL: Sequence[tuple[str, FilesystemKind, dict[str, int], int]] = (
    ("ext4-server", "ext4", server_tree(), 8184 * MIB),
    ("xfs-server", "xfs", server_tree(), 8184 * MIB),
    ("btrfs-server", "btrfs", server_tree(), 8184 * MIB),
    ("ntfs-windows", "ntfs", windows_tree(), 4 * GIB),
    ("ntfs-data", "ntfs", data_tree(), 4 * GIB),
    ("vfat-esp", "vfat", esp_tree(), 260 * MIB),
    ("xfs-data", "xfs", data_tree(), 8184 * MIB),
    ("xfs-archive", "xfs", data_tree(), 3 * TIB - 2 * MIB),
)
"""Name, kind, files and size. 8184 MiB are the extents of 4 MiB that a volume group over two disks of 4 GiB has."""


def main() -> None:
    """Write all of them beside this module."""
    for name, kind, tree, size_bytes in _ALL:
        packed = pack_prepared(make_prepared(kind, tree, size_bytes=size_bytes))
        (Path(__file__).parent / f"{name}.bin").write_bytes(packed)


if __name__ == "__main__":
    main()
