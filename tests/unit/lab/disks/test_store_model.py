"""Any sequence of operations: every disk reads as a plain array of bytes would, and change tracking never misses."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from holdfast.core import BLOCK_BYTES, KIB, SeededEntropy
from holdfast.lab.disks import CbtUnrelated, DiskStore

SIZES_BYTES = st.sampled_from([512, 64 * KIB, 200 * KIB, 320 * KIB])
OFFSETS = st.integers(0, 330 * KIB)
LENGTHS = st.sampled_from([1, 511, 4 * KIB, 64 * KIB, 130 * KIB])


@dataclass
class _Shadow:
    """What a disk must read as, and which granules were written since each snapshot before it."""

    content: bytearray
    tracked: bool = False
    since: dict[str, set[int]] = field(default_factory=dict)


class StoreMachine(RuleBasedStateMachine):
    disks = Bundle("disks")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = DiskStore(Path(self.folder.name), entropy=SeededEntropy(3))
        self.store.set_witness(enabled=True)
        self.shadows: dict[str, _Shadow] = {}
        self.witnessed: dict[str, str] = {}
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def _name(self) -> str:
        self.number += 1
        return f"disk-{self.number}"

    @rule(target=disks, size_bytes=SIZES_BYTES, tracked=st.booleans())
    def create(self, size_bytes: int, tracked: bool) -> str:
        name = self._name()
        self.store.create(name, size_bytes)
        if tracked:
            self.store.enable_cbt(name)
        self.shadows[name] = _Shadow(bytearray(size_bytes), tracked)
        return name

    @rule(name=disks, offset=OFFSETS, length=LENGTHS, fill=st.integers(0, 255))
    def write(self, name: str, offset: int, length: int, fill: int) -> None:
        shadow = self.shadows[name]
        low = offset % len(shadow.content)
        high = min(low + length, len(shadow.content))
        if fill:
            self.store.write(name, low, bytes([fill]) * (high - low))
        else:
            self.store.zero(name, low, high - low)
        shadow.content[low:high] = bytes([fill]) * (high - low)
        for granules in shadow.since.values():
            granules.update(range(low // BLOCK_BYTES, -(-high // BLOCK_BYTES)))

    @rule(target=disks, name=disks)
    def snapshot(self, name: str) -> str:
        copy = self._name()
        shadow = self.shadows[name]
        self.store.snapshot(name, copy)
        self.shadows[copy] = _Shadow(bytearray(shadow.content), shadow.tracked, {})
        if shadow.tracked:
            self.shadows[copy].since = {key: set(value) for key, value in shadow.since.items()}
            shadow.since[copy] = set()
        self.witnessed[copy] = ""
        return copy

    @rule(target=disks, name=disks)
    def clone(self, name: str) -> str:
        copy = self._name()
        self.store.clone(name, copy)
        self.shadows[copy] = _Shadow(bytearray(self.shadows[name].content))
        return copy

    @rule(name=disks, more_bytes=SIZES_BYTES)
    def resize(self, name: str, more_bytes: int) -> None:
        content = self.shadows[name].content
        if len(content) + more_bytes <= 640 * KIB:
            content.extend(bytes(more_bytes))
            self.store.resize(name, len(content))

    @rule(name=consumes(disks))
    def destroy(self, name: str) -> None:
        shadow = self.shadows.pop(name)
        self.store.destroy(name)
        if name in self.witnessed:
            self.witnessed[name] = hashlib.sha256(shadow.content).hexdigest()
        for other in self.shadows.values():
            other.since.pop(name, None)

    @rule(target=disks)
    def coalesce_everything(self) -> object:
        while names := self.store.coalescable():
            self.store.coalesce(names[0])
        return multiple()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = DiskStore(Path(self.folder.name), entropy=SeededEntropy(self.number + 100))

    @invariant()
    def every_disk_reads_as_its_shadow(self) -> None:
        for name, shadow in getattr(self, "shadows", {}).items():
            assert self.store.size_bytes(name) == len(shadow.content)
            assert self.store.read(name, 0, len(shadow.content)) == shadow.content

    @invariant()
    def every_change_is_in_the_log(self) -> None:
        for name, shadow in getattr(self, "shadows", {}).items():
            for source, granules in shadow.since.items():
                try:
                    flags = self.store.changed_blocks(source, name)
                except CbtUnrelated:
                    # A snapshot of a snapshot hands the log on; then no chain leads here, which a client sees.
                    continue
                assert granules <= {int(index) for index in flags.nonzero()[0]}

    @invariant()
    def every_witness_answers(self) -> None:
        for name, expected in getattr(self, "witnessed", {}).items():
            if expected and name not in self.shadows:
                assert self.store.sha256(name) == expected


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestStoreMachine = pytest.mark.slow(reason="thousands of operations on real files")(StoreMachine.TestCase)
