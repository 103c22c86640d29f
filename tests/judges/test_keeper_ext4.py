"""The kernel itself refuses what the keeper forbids: on real ext4, XFS and btrfs, against root's own hands."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.core import Cancellation, ManualClock, NoProgress, SeededEntropy, SystemClock
from holdfast.keeper import KEEPER_FOLDER, Keeper, KeeperRefused, LinuxFlags
from holdfast.model import Extent, RunId
from holdfast.repository import OpenHolder, Verdict, create_repository
from holdfast.storage import ObjectLocked, PosixStore
from tests.support.repositories import disk_facts, image_of, point_facts, write_whole

pytestmark = pytest.mark.judge

IMAGE = image_of({number: number + 1 for number in range(6)}, count=6)
MAKERS = {
    "ext4": (64, ["mkfs.ext4", "-q", "-F"]),
    "xfs": (320, ["mkfs.xfs", "-q", "-f"]),
    "btrfs": (128, ["mkfs.btrfs", "-q", "-f"]),
}


@pytest.fixture(params=sorted(MAKERS))
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    size_mib, maker = MAKERS[request.param]
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system and set its flags")
    if shutil.which(maker[0]) is None:
        pytest.skip(f"{maker[0]} is not installed")
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run([*maker, str(image)], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(mount)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no loop mount of {request.param} here: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True, capture_output=True)


def refuses(*command: str | Path) -> bool:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True)
    return done.returncode != 0 and "not permitted" in done.stderr


def test_what_the_keeper_holds_nobody_removes_and_backups_and_collection_go_on(mounted: Path, tmp_path: Path) -> None:
    folder = mounted / "store"
    clock = ManualClock(datetime.now(UTC))
    store = PosixStore(folder, create=True)
    repository = create_repository(store, holders=[OpenHolder()], clock=clock, entropy=SeededEntropy(1), workers=0)
    cancel = Cancellation()
    with Keeper(folder, state=tmp_path / "state", days=20, days_max=90, flags=LinuxFlags(), clock=clock) as keeper:
        keeper.look()
        repository.protection.set_days(20, progress=NoProgress(), cancel=cancel)
        with repository.begin_run(RunId("r-1"), cancel=cancel) as writer:
            stored = write_whole(writer, IMAGE)
            facts = point_facts("r-1", taken_at=clock.now())
            point = writer.publish(facts, [(disk_facts(len(IMAGE)), stored)])
        assert repository.protection.prove().verdict is Verdict.PENDING
        keeper.look()
        assert repository.protection.prove().verdict is Verdict.PROTECTED
        packs = sorted(each.key for each in store.list("packs/"))

        # Root's own hands, without chattr.
        pack = folder / packs[0]
        assert refuses("rm", "-f", pack)
        assert refuses("mv", pack, tmp_path / "stolen")
        assert refuses("truncate", "-s", "0", pack)
        assert refuses("ln", pack, folder / "tmp" / "second")
        assert refuses("mv", folder / "packs", folder / "gone")
        assert refuses("mv", folder / "packs" / packs[0].split("/")[1], folder / "tmp" / "gone")
        assert refuses("mv", folder / KEEPER_FOLDER, folder / "gone")

        for key in (*packs, point.key, "holdfast.json", "keys/open.json"):
            with pytest.raises(ObjectLocked) as refusal:
                store.delete(key)
            assert refusal.value.until is not None
            assert refusal.value.until >= clock.now() + timedelta(days=19)
        with pytest.raises(ObjectLocked):
            store.try_punch(packs[0], [Extent(offset_bytes=4096, length_bytes=4096)])
        with pytest.raises(ObjectLocked):
            repository.delete_point(point.id)

        for _ in range(60):
            clock.advance(24 * 3600)
            keeper.look()
        repository.delete_point(point.id)
        assert repository.apply_gc(repository.plan_gc(), cancel=cancel).deleted_packs == len(packs)
    assert list(store.list("packs/")) == []


def test_a_file_system_without_the_flag_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    mount = tmp_path / "mount"
    mount.mkdir()
    options = ["mount", "-t", "ramfs", "ramfs", str(mount)]
    if subprocess.run(options, capture_output=True).returncode != 0:
        pytest.skip("no ramfs here")
    try:
        (mount / "holdfast.json").write_bytes(b"{}")
        with pytest.raises(KeeperRefused, match="does not know the flag"):
            Keeper(mount, state=tmp_path / "state", days=1, days_max=1, flags=LinuxFlags(), clock=SystemClock())
    finally:
        subprocess.run(["umount", str(mount)], check=True, capture_output=True)
