"""Small repositories in memory, disks of chosen blocks, and facts to publish: the ground of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from holdfast.core import BLOCK_BYTES, Cancellation, ManualClock, NoProgress, SeededEntropy
from holdfast.model import (
    ChangeSource,
    Consistency,
    Coverage,
    DataRun,
    DiskFacts,
    DiskUuid,
    PointFacts,
    PoolUuid,
    RepositoryId,
    RunId,
    VmIdentity,
    VmUuid,
    ZeroRun,
)
from holdfast.repository import (
    OpenHolder,
    OpenUnlock,
    Repository,
    RestorePoint,
    RunWriter,
    Safety,
    StoredDisk,
    VerifyReport,
    create_repository,
    open_repository,
)
from holdfast.repository.sealing import KeyRing
from holdfast.storage import MemoryStore, ObjectStore

TEST_SAFETY = Safety(
    lease_s=100,
    lease_renewal_s=30,
    lease_fence_s=10,
    clock_skew_s=50,
    resume_grace_s=1000,
    collection_s=200,
    packs_announced=4,
)

TAKEN_AT = datetime(2026, 11, 20, 9, 8, 20, tzinfo=UTC)
WEB = VmUuid("11111111-aaaa-bbbb-cccc-000000000001")


class World:
    """A store with one open repository, its clock and its chance."""

    def __init__(
        self,
        store: ObjectStore | None = None,
        *,
        memory: MemoryStore | None = None,
        clock: ManualClock | None = None,
        seed: int = 1,
        workers: int = 0,
    ) -> None:
        """Make a repository in ``store``, or in memory; ``memory`` is what lies below a wrapped store."""
        self.memory = memory or MemoryStore()
        self.store: ObjectStore = self.memory if store is None else store
        self.clock = clock or ManualClock()
        self.entropy = SeededEntropy(seed)
        self.cancel = Cancellation()
        self.workers = workers
        self.repository = create_repository(
            self.store,
            holders=[OpenHolder()],
            clock=self.clock,
            entropy=self.entropy,
            workers=workers,
            safety=TEST_SAFETY,
        )

    def reopen(self) -> Repository:
        """Open the repository anew, as another process would."""
        self.repository = open_repository(
            self.store,
            unlock=OpenUnlock(),
            clock=self.clock,
            entropy=self.entropy,
            workers=self.workers,
            safety=TEST_SAFETY,
        )
        return self.repository

    def facts(self, run: str, *, vm: VmUuid = WEB) -> PointFacts:
        """Return facts of a VM a minute after whatever was before."""
        self.clock.advance(60)
        return point_facts(run, vm=vm, taken_at=self.clock.now())

    def begin(self, run: str) -> RunWriter:
        """Begin or resume a run."""
        return self.repository.begin_run(RunId(run), cancel=self.cancel)

    def back_up(self, image: bytes, *, run: str, vm: VmUuid = WEB) -> RestorePoint:
        """Back up one VM with one disk, read whole."""
        with self.begin(run) as writer:
            stored = write_whole(writer, image)
            return writer.publish(self.facts(run, vm=vm), [(disk_facts(len(image)), stored)])

    def back_up_changes(
        self, image: bytes, blocks: Iterable[int], *, run: str, reference: StoredDisk, vm: VmUuid = WEB
    ) -> RestorePoint:
        """Back up one VM with one disk, of which only some blocks are read."""
        with self.begin(run) as writer:
            stored = write_changes(writer, image, blocks, reference=reference)
            return writer.publish(self.facts(run, vm=vm), [(disk_facts(len(image)), stored)])

    def restore(self, point: RestorePoint, *, disk: int = 0) -> bytes:
        """Return a disk of a point, read as restores do."""
        return read_all(self.repository, point.disks[disk].stored, self.cancel)

    def verify(self) -> VerifyReport:
        """Verify everything."""
        return self.repository.verify(None, progress=NoProgress(), cancel=self.cancel)

    def collect(self) -> int:
        """Collect garbage; return how many packs were deleted."""
        return self.repository.apply_gc(self.repository.plan_gc(), cancel=self.cancel).deleted_packs

    def keys(self, prefix: str) -> list[str]:
        """Return the names of the objects below a prefix."""
        return [info.key for info in self.store.list(prefix)]


class _Holder(msgspec.Struct):
    repository: str
    key: bytes


def key_ring(store: ObjectStore) -> KeyRing:
    """Return the keys of a repository that has no secret."""
    holder = msgspec.json.decode(store.get("keys/open.json"), type=_Holder)
    return KeyRing(holder.key, repository=RepositoryId(holder.repository))


def image_of(blocks: Mapping[int, int], *, count: int, tail_bytes: int = 0) -> bytes:
    """Return a disk of ``count`` blocks; block ``n`` has content ``blocks[n]``, or is zero."""
    image = bytearray(count * BLOCK_BYTES + tail_bytes)
    for number, content in blocks.items():
        start = number * BLOCK_BYTES
        block = block_of(content)
        image[start : start + BLOCK_BYTES] = block[: len(image) - start]
    return bytes(image)


def block_of(content: int) -> bytes:
    """Return the block with this content: 0 is zero, odd numbers compress, even ones do not."""
    if content == 0:
        return bytes(BLOCK_BYTES)
    if content % 2:
        return (f"content {content:012d} ".encode() * 4096)[:BLOCK_BYTES]
    return SeededEntropy(content).token_bytes(BLOCK_BYTES)


def write_whole(writer: RunWriter, image: bytes, *, reference: StoredDisk | None = None) -> StoredDisk:
    """Store a disk in runs of three blocks."""
    disk = writer.open_disk(len(image), coverage=Coverage.WHOLE, reference=reference)
    for start in range(0, len(image), 3 * BLOCK_BYTES):
        disk.write(DataRun(start, image[start : start + 3 * BLOCK_BYTES]))
    return disk.finish()


def write_changes(writer: RunWriter, image: bytes, blocks: Iterable[int], *, reference: StoredDisk) -> StoredDisk:
    """Store a disk from its changed blocks; zero ones are told as zero runs."""
    disk = writer.open_disk(len(image), coverage=Coverage.CHANGES, reference=reference)
    for block in sorted(blocks):
        piece = image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        start = block * BLOCK_BYTES
        disk.write(DataRun(start, piece) if any(piece) else ZeroRun(start, len(piece)))
    return disk.finish()


def read_all(repository: Repository, stored: StoredDisk, cancel: Cancellation) -> bytes:
    """Return a whole disk through ``DiskSource.runs``."""
    source = repository.source(stored, cancel=cancel)
    image = bytearray(source.size_bytes)
    for run in source.runs():
        image[run.offset_bytes : run.offset_bytes + run.length_bytes] = run.data
    return bytes(image)


def point_facts(run: str, *, vm: VmUuid = WEB, taken_at: datetime = TAKEN_AT, name: str = "web-frontend") -> PointFacts:
    """Return facts of a VM at a moment."""
    return PointFacts(
        vm=VmIdentity(uuid=vm, name=name, pool=PoolUuid("pool-1"), pool_name="Main street"),
        taken_at=taken_at,
        run=RunId(run),
        job="nightly-payroll",
        consistency=Consistency.CRASH,
        previous=None,
        tags=("gold",),
        vm_record={"name_label": name, "is_a_template": False, "from_the_future": {"x": [1, 2.5, None]}},
        vm_metadata=b"tar",
    )


def disk_facts(size_bytes: int, *, name: str = "system-volume") -> DiskFacts:
    """Return facts of a disk."""
    return DiskFacts(
        uuid=DiskUuid("disk-1"),
        name=name,
        position="0",
        bootable=True,
        size_bytes=size_bytes,
        change_source=ChangeSource.FULL,
        change_reason="first backup",
        reference=None,
        vdi_record={"name_label": name},
        vbd_record={"userdevice": "0"},
    )
