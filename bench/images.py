"""The inputs: disk images of a Linux VM with a database, before and after a day's work.

``base.raw``: a GPT disk with one ext4 partition, made without root by ``mke2fs -d``: real files of this machine, a
SQLite database, incompressible files; about a third of it is zero. ``upgrade.raw``: the same disk after a package
upgrade. ``db.raw``: that one after half a percent of the database's pages were rewritten in place. Beside both lie the
64 KiB granules that changed block tracking would name. ``clone.raw``: a copy of the base that has booted as another
machine. ``reinstalled.raw``: the files of the base in a file system that was made anew, laid out differently.
Invariant: an image that is there is complete; it gets its name last.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.database import plan_page_writes, spoil_page, write_database
from bench.gpt import PARTITION_OFFSET_BYTES, partition_bytes, write_table
from bench.mutations import changed_granules, clone_machine, upgrade_packages
from holdfast.core import BLOCK_BYTES, GIB, MIB, format_bytes

__all__ = ["Images", "Mutation", "Recipe", "ToolMissing", "default_folder", "prepare_images"]

_SOURCES = (
    "usr/bin",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/share/doc",
    "usr/share/man",
    "var/lib/dpkg",
    "usr/sbin",
    "usr/share",
    "usr/lib",
)
"""Where real files come from, in this order, until there are enough."""

_DATABASE_PATH = "var/lib/db/data.db"
_RANDOM_FILE_BYTES = 4 * MIB
_VERSION = 2
"""Of the recipe; a folder made by another version is made anew."""


class ToolMissing(Exception):
    """A program that builds the images or plays a peer is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What goes into the images. The defaults are what published figures are measured on."""

    disk_bytes: int = 4 * GIB
    files_bytes: int = 1_550_000_000
    database_bytes: int = GIB
    random_bytes: int = 256 * MIB
    upgraded_bytes: int = 32_000_000
    changed_share: float = 0.005
    version: int = _VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """The disk after some work, and what that work changed since the image before."""

    disk: Path
    changes: Path
    """JSON: ascending, merged ``[offset_bytes, length_bytes]`` pairs on 64 KiB borders."""
    written_bytes: int
    """What was written: whole files, whole pages."""
    changed_bytes: int
    """What changed block tracking makes of it: whole 64 KiB granules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Where the images are, and what is in them."""

    base: Path
    upgrade: Mutation
    database: Mutation
    """Made from the upgraded disk."""
    clone: Mutation
    """Made from the base."""
    reinstalled: Path
    disk_bytes: int
    nonzero_bytes: int

    def explain(self) -> str:
        """Return one line about the inputs, for the head of a report."""
        zero_share = 1 - self.nonzero_bytes / self.disk_bytes
        return (
            f"{format_bytes(self.disk_bytes)} disk, {zero_share:.0%} zero; upgrade: "
            f"{self.upgrade.written_bytes / 1e6:.1f} MB of files in {self.upgrade.changed_bytes / 1e6:.1f} MB of "
            f"64 KiB blocks; database increment: {self.database.written_bytes / 1e6:.1f} MB of pages in "
            f"{self.database.changed_bytes / 1e6:.1f} MB of such blocks"
        )


def default_folder() -> Path:
    """Return where images are kept unless a folder is named: outside the checkout, shared by all runs."""
    return Path(tempfile.gettempdir()) / "holdfast-bench"


def prepare_images(folder: Path, *, recipe: Recipe | None = None) -> Images:
    """Return the images of the recipe, built if the folder does not hold them yet (about two minutes, 16 GB).

    ``ToolMissing`` when e2fsprogs is not installed.
    """
    recipe = recipe or Recipe()
    facts_path = folder / "images.json"
    if facts_path.exists():
        known = json.loads(facts_path.read_text())
        if known["recipe"] == asdict(recipe):
            return _images(folder, known)
        facts_path.unlink()
    mke2fs, debugfs, tune2fs = (_find(tool) for tool in ("mke2fs", "debugfs", "tune2fs"))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="tree-") as name:
        live_bytes = _fill_tree(Path(name), recipe)
        _make_disk(folder / "base.raw", Path(name), recipe, mke2fs=mke2fs)
        _make_disk(folder / "reinstalled.raw", Path(name), recipe, mke2fs=mke2fs, is_again=True)
    facts: dict[str, Any] = {"recipe": asdict(recipe), "nonzero_bytes": _nonzero_bytes(folder / "base.raw")}
    with _copied(folder / "base.raw", folder / "upgrade.raw") as disk:
        written_bytes = upgrade_packages(disk, upgraded_bytes=recipe.upgraded_bytes, debugfs=debugfs)
    facts["upgrade"] = _note_changes(folder, "upgrade", before="base", written_bytes=written_bytes)
    with _copied(folder / "upgrade.raw", folder / "db.raw") as disk:
        written_bytes = _change_database(disk, recipe, live_bytes=live_bytes)
    facts["db"] = _note_changes(folder, "db", before="upgrade", written_bytes=written_bytes)
    with _copied(folder / "base.raw", folder / "clone.raw") as disk:
        clone_machine(disk, debugfs=debugfs, tune2fs=tune2fs)
    facts["clone"] = _note_changes(folder, "clone", before="base", written_bytes=0)
    facts_path.write_text(json.dumps(facts, indent=1))
    return _images(folder, facts)


def _images(folder: Path, facts: dict[str, Any]) -> Images:
    return Images(
        base=folder / "base.raw",
        upgrade=_mutation(folder, "upgrade", facts),
        database=_mutation(folder, "db", facts),
        clone=_mutation(folder, "clone", facts),
        reinstalled=folder / "reinstalled.raw",
        disk_bytes=(folder / "base.raw").stat().st_size,
        nonzero_bytes=facts["nonzero_bytes"],
    )


def _mutation(folder: Path, name: str, facts: dict[str, Any]) -> Mutation:
    return Mutation(disk=folder / f"{name}.raw", changes=folder / f"{name}.changes.json", **facts[name])


def _note_changes(folder: Path, name: str, *, before: str, written_bytes: int) -> dict[str, int]:
    changed = changed_granules(folder / f"{before}.raw", folder / f"{name}.raw")
    (folder / f"{name}.changes.json").write_text(json.dumps(changed))
    return {"written_bytes": written_bytes, "changed_bytes": sum(length_bytes for _, length_bytes in changed)}


@contextlib.contextmanager
def _copied(source: Path, target: Path) -> Iterator[Path]:
    """Yield a copy to work on, which gets the name of the target when the work is done."""
    unfinished = target.with_suffix(".unfinished")
    subprocess.run(["cp", "--sparse=always", str(source), str(unfinished)], check=True)
    yield unfinished
    unfinished.rename(target)


def _fill_tree(tree: Path, recipe: Recipe) -> int:
    """Make the file system's content below ``tree``; return how many bytes of the database hold pages."""
    left_bytes = recipe.files_bytes
    for source in _real_files():
        if left_bytes < BLOCK_BYTES:
            break
        length_bytes = source.stat().st_size
        if length_bytes > left_bytes:
            continue
        target = tree / source.relative_to("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            left_bytes -= length_bytes
    chance = random.Random(3)
    (tree / "srv").mkdir()
    for n in range(recipe.random_bytes // _RANDOM_FILE_BYTES):
        (tree / f"srv/photo{n:03d}.jpg").write_bytes(chance.randbytes(_RANDOM_FILE_BYTES))
    database = tree / _DATABASE_PATH
    database.parent.mkdir(parents=True)
    return write_database(database, size_bytes=recipe.database_bytes)


def _real_files() -> Iterator[Path]:
    """Yield files of this machine that anybody may read, in a fixed order, each folder of the list in full."""
    for source in _SOURCES:
        for folder, folders, names in os.walk(Path("/") / source):
            folders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                    yield path


def _make_disk(path: Path, tree: Path, recipe: Recipe, *, mke2fs: str, is_again: bool = False) -> None:
    """Make the disk image with the tree in its one partition; again: by another installer, so with another layout."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        file.truncate(recipe.disk_bytes)
        write_table(file, disk_bytes=recipe.disk_bytes)
    blocks = partition_bytes(recipe.disk_bytes) // 4096
    identity = "77777777-2222-3333-4444-555555555555" if is_again else "11111111-2222-3333-4444-555555555555"
    layout = ["-i", "8192", "-I", "512"] if is_again else []
    options = f"offset={PARTITION_OFFSET_BYTES},hash_seed={identity},lazy_itable_init=0,root_owner=0:0"
    command = [mke2fs, "-q", "-F", "-t", "ext4", "-b", "4096", "-U", identity, "-L", "root", *layout, "-E", options]
    # A repeatable time stamp: the image depends on the files alone.
    environment = {**os.environ, "E2FSPROGS_FAKE_TIME": "1700000000"}
    subprocess.run([*command, "-d", str(tree), str(unfinished), str(blocks)], check=True, env=environment)
    unfinished.rename(path)


def _change_database(path: Path, recipe: Recipe, *, live_bytes: int) -> int:
    """Rewrite pages of the database on a disk in place; return how many bytes were written."""
    file_to_disk = _placement(path, _DATABASE_PATH)
    share = recipe.changed_share * recipe.database_bytes / live_bytes
    written_bytes = 0
    with path.open("r+b") as disk:
        for n, write in enumerate(plan_page_writes(live_bytes=live_bytes, share=share)):
            place = file_to_disk.of(write.offset_bytes, write.length_bytes)
            other_place = file_to_disk.of(write.other_offset_bytes, write.length_bytes)
            if place is None or other_place is None:
                continue  # across two extents of the file: there are a handful of borders in a gigabyte
            page = os.pread(disk.fileno(), write.length_bytes, place)
            other = os.pread(disk.fileno(), write.length_bytes, other_place)
            written_bytes += os.pwrite(disk.fileno(), spoil_page(page, other, seed=n), place)
    return written_bytes


@dataclass(frozen=True, slots=True)
class _Placement:
    """Where a file's bytes lie on the disk: (offset in the file, offset on the disk, length), ascending."""

    extents: list[tuple[int, int, int]]

    def of(self, offset_bytes: int, length_bytes: int) -> int | None:
        """Return where the range begins on the disk; None when it is not in one piece."""
        for start, place, extent_bytes in self.extents:
            if start <= offset_bytes and offset_bytes + length_bytes <= start + extent_bytes:
                return place + offset_bytes - start
        return None


def _placement(disk: Path, path: str) -> _Placement:
    from dissect.extfs import ExtFS
    from dissect.util.stream import RangeStream

    with disk.open("rb") as file:
        size_bytes = disk.stat().st_size
        partition = RangeStream(file, PARTITION_OFFSET_BYTES, size_bytes - PARTITION_OFFSET_BYTES)
        file_system = ExtFS(partition)
        extents = []
        offset_bytes = 0
        for block, count in file_system.get(path).dataruns():
            length_bytes = count * file_system.block_size
            if block is not None:
                place = PARTITION_OFFSET_BYTES + block * file_system.block_size
                extents.append((offset_bytes, place, length_bytes))
            offset_bytes += length_bytes
    return _Placement(extents)


def _nonzero_bytes(path: Path) -> int:
    """Return how many bytes lie in 64 KiB blocks that are not all zero."""
    zero = bytes(BLOCK_BYTES)
    count = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            count += 0 if block == zero[: len(block)] else len(block)
    return count


def _find(tool: str) -> str:
    # An ordinary user's PATH lacks the sbin folders, where they usually are.
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise ToolMissing(f"{tool} is not installed; on Debian: apt install e2fsprogs")
    return found
