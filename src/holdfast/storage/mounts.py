"""What kind of file system a folder lies on, and what of its options matters for backups.

The kernel's own table is read (``/proc/self/mountinfo``); nothing is mounted or asked of a server. Invariant: a finding
says only what can be seen from here, and says so where something cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.storage.findings import Finding, Severity

__all__ = ["Mount", "find_mount", "judge_mount", "parse_mounts"]

_TABLE = Path("/proc/self/mountinfo")

_OCTAL = re.compile(r"\\([0-7]{3})")

_KINDS = {
    "nfs": "NFS",
    "nfs4": "NFS",
    "cifs": "SMB",
    "smb3": "SMB",
    "fuse.sshfs": "sshfs",
    "fuse.rclone": "rclone",
    "fuse.s3fs": "s3fs",
    "fuse.goofys": "goofys",
    "fuse.gcsfuse": "gcsfuse",
    "fuse.glusterfs": "GlusterFS",
    "fuse.mergerfs": "mergerfs",
    "fuseblk": "a driver in user space",
    "9p": "a folder of the machine outside (9p)",
    "virtiofs": "a folder of the machine outside (virtiofs)",
    "overlay": "a container's own layer (overlay)",
    "tmpfs": "memory (tmpfs)",
    "ramfs": "memory (ramfs)",
    "vfat": "FAT",
    "exfat": "exFAT",
}

_SHARED_KINDS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs"})

_BUCKET_DRIVERS = frozenset({"fuse.rclone", "fuse.s3fs", "fuse.goofys", "fuse.gcsfuse"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of the kernel's table."""

    kind: str
    """As the kernel calls it: ``ext4``, ``nfs4``, ``fuse.sshfs``."""
    folder: str
    """Where it is mounted."""
    source: str
    """What is mounted: a device, ``server:/export``, ``//server/share``."""
    options: frozenset[str]
    """Those of the mount and of the file system together."""

    @property
    def is_shared(self) -> bool:
        """Whether other machines may change what is there, while this one remembers what it has seen."""
        return self.kind in _SHARED_KINDS or self.kind.startswith("fuse.")

    def option(self, name: str) -> str | None:
        """Return the value of an option such as ``vers=4.2``, None without it."""
        return next((each.partition("=")[2] for each in self.options if each.partition("=")[0] == name), None)

    def describe(self) -> str:
        """Return what it is, for people: a phrase such as ``NFS 4.2, nas:/backup mounted at /srv``."""
        kind = _KINDS.get(self.kind, self.kind)
        version = self.option("vers")
        named = f"{kind} {version}" if version and kind in ("NFS", "SMB") else kind
        return f"{named}, {self.source} mounted at {self.folder}"


def find_mount(path: Path | str, *, table: Path = _TABLE) -> Mount | None:
    """Return what a folder lies on; None where the system does not tell. The folder need not exist yet."""
    try:
        mounts = list(parse_mounts(table.read_text(errors="surrogateescape")))
        wanted = Path(path).resolve()
    except OSError:
        return None
    # Of two mounts on one folder the later line covers the earlier one.
    below = [each for each in mounts if wanted.is_relative_to(each.folder)]
    return max(enumerate(below), key=lambda item: (len(Path(item[1].folder).parts), item[0]))[1] if below else None


def parse_mounts(text: str) -> Iterator[Mount]:
    """Yield the mounts of a table in the kernel's format (proc(5), ``mountinfo``); lines that are not are skipped."""
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if not dash or len(before) < 6 or len(after) < 3:
            continue
        yield Mount(
            kind=after[0],
            folder=_plain(before[4]),
            source=_plain(after[1]),
            options=frozenset(before[5].split(",")) | frozenset(after[2].split(",")),
        )


def judge_mount(mount: Mount) -> Iterator[Finding]:
    """Yield what matters about a mount; the first finding names it."""
    yield Finding(
        name="place",
        severity=Severity.GOOD if mount.folder != "/" else Severity.NOTE,
        seen=mount.describe(),
        meaning=(
            "The folder has a file system of its own."
            if mount.folder != "/"
            else "It shares the disk of the system: a repository that fills it stops other programs too."
        ),
    )
    if "ro" in mount.options:
        yield _note("It is mounted for reading", "Restores work; backups, retention and healing do not.")
    if mount.kind in ("nfs", "nfs4"):
        yield from _judge_nfs(mount)
    elif mount.kind in ("cifs", "smb3"):
        yield from _judge_smb(mount)
    elif mount.kind in ("tmpfs", "ramfs"):
        yield _finding(Severity.RISK, "It lies in memory", "All restore points are gone when the machine restarts.")
    elif mount.kind == "overlay":
        yield _finding(
            Severity.WARNING,
            "It lies in the container, not in a volume",
            "All restore points are gone when the container is made anew. Mount a volume there.",
        )
    elif mount.kind in _BUCKET_DRIVERS:
        yield _finding(
            Severity.RISK,
            f"{_KINDS[mount.kind]} uploads files after it has called them written",
            "A run may call data stored that is only in a cache on this machine. Use the bucket directly: s3://, azure://.",
        )
    elif mount.kind.startswith("fuse"):
        yield from _judge_fuse(mount)
    elif mount.kind in ("9p", "virtiofs"):
        yield _note(
            "The machine outside keeps the files",
            "Whether what was written outlives its power failure is up to its settings (cache mode of the share).",
        )
    elif mount.kind in ("vfat", "exfat"):
        yield _note(
            "This file system has no journal", "Pulled out or without power while it is written, it may need repair."
        )
    if mount.options & {"nobarrier", "barrier=0"}:
        yield _finding(
            Severity.WARNING,
            "Write barriers are off",
            "After a power failure restore points may be missing or damaged, unless the disks have a battery.",
        )


def _judge_nfs(mount: Mount) -> Iterator[Finding]:
    if mount.options & {"soft", "softerr"}:
        yield _finding(
            Severity.WARNING,
            "It is mounted 'soft'",
            "An outage of a minute fails a run that a 'hard' mount would let wait; nothing wrong is stored.",
        )
    if "nolock" in mount.options or mount.option("local_lock") in ("all", "posix", "flock"):
        yield _note("File locks stay on this machine", "Harmless: writers exclude each other without file locks.")
    yield _note(
        "Whether the server exports it with 'async' cannot be seen from here",
        "With 'async', a crash of the server loses data that it has called durable. Export it with 'sync'.",
    )
    yield _space_shared()


def _judge_smb(mount: Mount) -> Iterator[Finding]:
    if "nostrictsync" in mount.options:
        yield _finding(
            Severity.WARNING,
            "It is mounted with 'nostrictsync'",
            "A power failure of the server loses data that a run has called stored. Mount it without this option.",
        )
    if mount.option("cache") == "loose":
        yield _finding(
            Severity.WARNING,
            "It is mounted with 'cache=loose'",
            "What other machines stored or deleted may be seen late. Mount it with 'cache=strict', the default.",
        )
    if mount.option("cache") == "none":
        yield _note("It is mounted with 'cache=none'", "Safe, and slower to read; 'cache=strict' is as safe.")
    if (mount.option("vers") or "").startswith("1"):
        yield _finding(
            Severity.WARNING,
            "It speaks SMB 1",
            "Logins and data can be read and changed on the way; restore points are sealed, the password is not.",
        )
    yield _note(
        "The server can be used without this mount, too", f"smb:{mount.source}/… keeps the same files, without root."
    )
    yield _space_shared()


def _judge_fuse(mount: Mount) -> Iterator[Finding]:
    if mount.kind == "fuse.sshfs":
        yield _note(
            "sshfs asks the server to make files durable only where that is OpenSSH",
            "Elsewhere a power failure of the server may lose what a run has called stored.",
        )
        yield _space_shared()
        return
    yield _note(
        "A program in user space keeps the files",
        "Whether what was written outlives a power failure is up to it.",
    )


def _space_shared() -> Finding:
    return _note("Free space is the server's", "Others who use the server take from it, and quotas may end it earlier.")


def _note(seen: str, meaning: str) -> Finding:
    return _finding(Severity.NOTE, seen, meaning)


def _finding(severity: Severity, seen: str, meaning: str) -> Finding:
    return Finding(name="mount", severity=severity, seen=seen, meaning=meaning)


def _plain(text: str) -> str:
    r"""Return a name without the table's escapes (``\040`` is a space)."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)
