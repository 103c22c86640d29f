"""A folder's file system is named from the kernel's own table, with what matters of its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.storage import Mount, Severity, find_mount, judge_mount
from holdfast.storage.mounts import parse_mounts
from tests.support.sshfs_mount import new_sshfs_folder

# Lines as Linux 6.1 writes them.
ROOT = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro"
PROC = "23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw"
NFS = (
    "80 22 0:50 / /srv/backup rw,relatime shared:60 - nfs4 nas.example.org:/export/backup "
    "rw,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2,sec=sys,"
    "clientaddr=192.0.2.10,local_lock=none,addr=192.0.2.5"
)
NFS_SOFT = (
    "81 22 0:51 / /srv/soft rw,relatime - nfs nas:/export "
    "rw,vers=3,soft,nolock,proto=tcp,timeo=50,local_lock=all,addr=192.0.2.5"
)
CIFS = (
    "82 22 0:52 / /srv/win rw,relatime - cifs //nas/share\\040one "
    "rw,vers=3.1.1,cache=strict,username=keeper,uid=0,forceuid,soft,nounix,serverino,rsize=4194304"
)
CIFS_ODD = "83 22 0:53 / /srv/odd ro,relatime - cifs //nas/b ro,vers=1.0,cache=loose,nostrictsync,username=x"
SSHFS = "84 22 0:54 / /srv/ssh rw,nosuid,nodev - fuse.sshfs keeper@nas:/data rw,user_id=0,group_id=0"
RCLONE = "85 22 0:55 / /srv/cloud rw,nosuid - fuse.rclone remote:bucket rw,user_id=0,group_id=0"
TMPFS = "86 22 0:56 / /run rw,nosuid,nodev shared:9 - tmpfs tmpfs rw,size=804416k,mode=755"
OVERLAY = "87 1 0:57 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d"
XFS = "88 22 8:17 / /srv/with\\040space rw,noatime shared:61 - xfs /dev/sdb1 rw,attr2,inode64,noquota"
BARE = "89 22 8:33 / /srv/bare rw - ext3 /dev/sdc1 rw,barrier=0"
OTHER = "90 22 0:60 / /srv/fuse rw - fuse.bindfs /data rw,user_id=0"
OUTSIDE = "91 22 0:61 / /srv/outside rw - virtiofs hostshare rw"


def one(line: str) -> Mount:
    (mount,) = parse_mounts(line)
    return mount


def told(line: str) -> list[tuple[Severity, str]]:
    return [(each.severity, each.seen) for each in judge_mount(one(line))]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "ext4, /dev/vda1 mounted at /"),
        ("/srv/backup/holdfast", "NFS 4.2, nas.example.org:/export/backup mounted at /srv/backup"),
        ("/srv/backup", "NFS 4.2, nas.example.org:/export/backup mounted at /srv/backup"),
        ("/srv/backups", "ext4, /dev/vda1 mounted at /"),
        ("/srv/win/x/y", "SMB 3.1.1, //nas/share one mounted at /srv/win"),
        ("/srv/with space/x", "xfs, /dev/sdb1 mounted at /srv/with space"),
        ("/srv/ssh/not/there/yet", "sshfs, keeper@nas:/data mounted at /srv/ssh"),
    ],
)
def test_a_folder_lies_on_the_longest_prefix(tmp_path: Path, path: str, expected: str) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("\n".join([ROOT, PROC, NFS, CIFS, SSHFS, XFS]) + "\n")
    mount = find_mount(path, table=table)
    assert mount is not None
    assert mount.describe() == expected


def test_the_later_of_two_mounts_on_one_folder_covers_the_earlier(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"{ROOT}\n{NFS}\n{TMPFS.replace('/run', '/srv/backup')}\n")
    mount = find_mount("/srv/backup/x", table=table)
    assert mount is not None
    assert mount.kind == "tmpfs"


def test_a_link_is_followed_to_where_the_files_are(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    table = tmp_path / "mountinfo"
    table.write_text(f"{ROOT}\n{NFS.replace('/srv/backup', str(tmp_path / 'real'))}\n")
    mount = find_mount(tmp_path / "link" / "holdfast", table=table)
    assert mount is not None
    assert mount.kind == "nfs4"


def test_a_system_without_the_table_and_lines_that_are_none_tell_nothing(tmp_path: Path) -> None:
    assert find_mount("/", table=tmp_path / "absent") is None
    assert list(parse_mounts("\nrubbish\n1 2 - x\n36 35 98:0 /a /b rw\n")) == []


def test_this_machine_tells_where_its_own_folders_are(tmp_path: Path) -> None:
    mount = find_mount(tmp_path)
    if not Path("/proc/self/mountinfo").exists():
        assert mount is None
        return
    assert mount is not None
    assert tmp_path.resolve().is_relative_to(mount.folder)


def test_a_real_mount_in_user_space_is_recognised() -> None:
    mount = find_mount(new_sshfs_folder() / "not" / "there")
    assert mount is not None
    assert mount.kind == "fuse.sshfs"
    assert mount.describe().startswith("sshfs, here:/")


def test_a_good_nfs_mount_is_named_and_what_cannot_be_seen_is_said() -> None:
    severities = [severity for severity, _ in told(NFS)]
    assert set(severities) == {Severity.GOOD, Severity.NOTE}
    assert any("'async' cannot be seen" in seen for _, seen in told(NFS))
    assert not any("lock" in seen for _, seen in told(NFS))


def test_soft_and_nolock_are_told_apart_in_weight() -> None:
    found = told(NFS_SOFT)
    assert (Severity.WARNING, "It is mounted 'soft'") in found
    assert (Severity.NOTE, "File locks stay on this machine") in found


def test_an_ordinary_smb_mount_has_no_warning_and_a_reckless_one_three() -> None:
    assert not [seen for severity, seen in told(CIFS) if severity is Severity.WARNING]
    warnings = [seen for severity, seen in told(CIFS_ODD) if severity is Severity.WARNING]
    assert len(warnings) == 3
    assert any("nostrictsync" in seen for seen in warnings)
    assert any("cache=loose" in seen for seen in warnings)
    assert any("SMB 1" in seen for seen in warnings)
    assert (Severity.NOTE, "It is mounted for reading") in told(CIFS_ODD)


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        (TMPFS, Severity.RISK),
        (RCLONE, Severity.RISK),
        (OVERLAY, Severity.WARNING),
        (BARE, Severity.WARNING),
        (SSHFS, Severity.NOTE),
        (OTHER, Severity.NOTE),
        (OUTSIDE, Severity.NOTE),
        (ROOT, Severity.NOTE),
        (XFS, Severity.GOOD),
    ],
    ids=lambda value: value.split(" - ")[1].split(" ")[0] if isinstance(value, str) else "",
)
def test_the_worst_that_a_mount_can_do_sets_the_tone(line: str, severity: Severity) -> None:
    order = [Severity.GOOD, Severity.NOTE, Severity.WARNING, Severity.RISK]
    assert max((found for found, _ in told(line)), key=order.index) is severity
