"""Any sequence of operations: every disk reads as a plain array of bytes would, change tracking never misses a write,
and every destroyed snapshot can still be proven."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core import BLOCK_BYTES, KIB, SeededEntropy
from holdfast.lab.disks import CbtUnrelated, DiskStore

KINDS = (
    ("write",) * 5
    + ("snapshot",) * 4
    + ("zero", "zero", "destroy", "destroy", "merge", "clone", "resize", "restart", "freeze", "prune")
)
LENGTHS_BYTES = (1, 511, 4 * KIB, 64 * KIB, 130 * KIB)


@dataclass(frozen=True)
class Operation:
    kind: str
    disk: int
    offset_bytes: int
    length_bytes: int
    fill: int


OPERATIONS = st.builds(
    Operation,
    st.sampled_from(KINDS),
    st.integers(0, 7),
    st.integers(0, 330 * KIB),
    st.sampled_from(LENGTHS_BYTES),
    st.integers(1, 255),
)


@dataclass
class Shadow:
    """What a disk must read as; of the tracked live disk also which granules were written since each snapshot."""

    content: bytearray
    since: dict[str, set[int]] = field(default_factory=dict)


class World:
    """A store beside its shadows. ``disk-0`` is tracked and its snapshots are never snapshotted themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = DiskStore(folder, entropy=SeededEntropy(3))
        self.store.set_witness(enabled=True)
        self.shadows: dict[str, Shadow] = {}
        self.proofs: dict[str, str] = {}
        self.snapshots: set[str] = set()
        self.count = 0
        self.restarts = 0
        for size_bytes in (200 * KIB, 64 * KIB + 512):
            name = self.new_name()
            self.store.create(name, size_bytes)
            self.shadows[name] = Shadow(bytearray(size_bytes))
        self.store.enable_cbt("disk-0")

    def new_name(self) -> str:
        self.count += 1
        return f"disk-{self.count - 1}"

    def apply(self, operation: Operation) -> None:
        name = list(self.shadows)[operation.disk % len(self.shadows)]
        shadow = self.shadows[name]
        match operation.kind:
            case "write" | "zero":
                low = operation.offset_bytes % len(shadow.content)
                high = min(low + operation.length_bytes, len(shadow.content))
                self.change(name, low, bytes([operation.fill if operation.kind == "write" else 0]) * (high - low))
            case "snapshot" if name not in self.snapshots:
                copy = self.new_name()
                self.store.snapshot(name, copy)
                self.snapshots.add(copy)
                self.shadows[copy] = Shadow(bytearray(shadow.content), {key: set(v) for key, v in shadow.since.items()})
                if name == "disk-0":
                    shadow.since[copy] = set()
            case "clone":
                copy = self.new_name()
                self.store.clone(name, copy)
                self.shadows[copy] = Shadow(bytearray(shadow.content))
            case "destroy" if name != "disk-0":
                self.destroy(name)
            case "merge":
                while names := self.store.coalescable():
                    self.store.coalesce(names[operation.disk % len(names)])
            case "freeze" if name not in self.snapshots:
                self.store.freeze(name)
            case "prune":
                self.store.prune(self.store.uuids())
            case "resize" if len(shadow.content) < 640 * KIB:
                shadow.content.extend(bytes(operation.length_bytes * 512 % (192 * KIB)))
                self.store.resize(name, len(shadow.content))
            case "restart":
                self.store.close()
                self.restarts += 1  # base copies are named by chance, and no two may be named alike
                self.store = DiskStore(self.folder, entropy=SeededEntropy(self.restarts + 100))

    def change(self, name: str, offset_bytes: int, data: bytes) -> None:
        if any(data):
            self.store.write(name, offset_bytes, data)
        else:
            self.store.zero(name, offset_bytes, len(data))
        shadow = self.shadows[name]
        shadow.content[offset_bytes : offset_bytes + len(data)] = data
        for granules in shadow.since.values() if name == "disk-0" else ():
            granules.update(range(offset_bytes // BLOCK_BYTES, -(-(offset_bytes + len(data)) // BLOCK_BYTES)))

    def destroy(self, name: str) -> None:
        shadow = self.shadows.pop(name)
        self.store.destroy(name)
        if name in self.snapshots:
            self.proofs[name] = hashlib.sha256(shadow.content).hexdigest()
        for other in self.shadows.values():
            other.since.pop(name, None)

    def check(self) -> None:
        for name, shadow in self.shadows.items():
            assert self.store.size_bytes(name) == len(shadow.content)
            assert self.store.read(name, 0, len(shadow.content)) == shadow.content
            for source, granules in shadow.since.items():
                flags = self.store.changed_blocks(source, name)
                assert granules <= {int(index) for index in flags.nonzero()[0]}


@pytest.mark.slow(reason="thousands of operations on real files")
@settings(max_examples=150)
@given(st.lists(OPERATIONS, min_size=5, max_size=40))
def test_any_sequence_of_operations_reads_back_as_plain_arrays_do(operations: list[Operation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            for operation in operations:
                world.apply(operation)
                world.check()
            for name, expected in world.proofs.items():
                assert world.store.sha256(name) == expected
            assert sum(not world.store.is_base_copy(name) for name in world.store.uuids()) == len(world.shadows)
        finally:
            world.store.close()


@pytest.mark.slow(reason="many small stores on real files")
@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=8))
def test_tracking_reports_nothing_that_was_not_written(granules: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, DiskStore(Path(folder)) as store:
        store.create("live", 4 * BLOCK_BYTES)
        store.enable_cbt("live")
        for number, granule in enumerate(granules):
            store.write("live", granule * BLOCK_BYTES, b"x")
            store.snapshot("live", f"snap-{number}")
        for first in range(len(granules)):
            for last in range(first + 1, len(granules)):
                flags = store.changed_blocks(f"snap-{first}", f"snap-{last}")
                assert set(flags.nonzero()[0].tolist()) == set(granules[first + 1 : last + 1])
            with pytest.raises(CbtUnrelated):
                store.changed_blocks(f"snap-{first}", f"snap-{first}")
