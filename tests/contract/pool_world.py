"""A lab pool and the pool client at it, as the contract tests use them.

Time is the machine's own, but waiting for the pool to let go takes a hundredth of what it takes at night.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.core import Cancellation, SystemClock, SystemEntropy
from holdfast.lab import RunningLab
from holdfast.model import DataRun, DiskReader, DiskUuid, Reference, Vm
from holdfast.xapi import (
    Credentials,
    PinnedCertificate,
    PoolAddress,
    PoolClient,
    ReadPlan,
    VmSnapshot,
    open_pool,
)
from tests.support.lab import tiny_lab

__all__ = ["HurriedClock", "World", "pool_world", "read_disk"]

_HURRY = 100


class HurriedClock(SystemClock):
    """The machine's clock whose waits are a hundred times shorter."""

    def sleep(self, duration_s: float, *, cancel: Cancellation | None = None) -> None:
        super().sleep(duration_s / _HURRY, cancel=cancel)


@dataclass
class World:
    """A lab, a client at it, and the VM that tests are done on."""

    lab: RunningLab
    pool: PoolClient
    vm: Vm
    cancel: Cancellation

    @property
    def disk(self) -> DiskUuid:
        """The first disk of the VM."""
        return self.vm.disks[0].disk.uuid

    def snapshot(self, name: str = "holdfast test") -> VmSnapshot:
        return self.pool.snapshot_vm(self.vm.uuid, name_label=name)

    def guest_writes(self, *places: tuple[int, int], seed: int = 1) -> None:
        """Let the guest write random bytes at these (offset, length) of its first disk."""
        entropy = random.Random(seed)
        for offset_bytes, length_bytes in places:
            self.lab.pool.disks.write(self.disk, offset_bytes, entropy.randbytes(length_bytes))

    def plan(self, snapshot: VmSnapshot, reference: Reference | None = None, *, force_full: bool = False) -> ReadPlan:
        return self.pool.plan_read(
            live=self.disk, snapshot=snapshot.disks[self.disk], reference=reference, force_full=force_full
        )

    def read(self, plan: ReadPlan, *, onto: bytes = b"") -> bytes:
        """Return the disk that reading gives, changes laid onto an older content."""
        with self.pool.open_reader(plan, cancel=self.cancel) as reader:
            return read_disk(reader, onto=onto)

    def content(self, disk: DiskUuid) -> bytes:
        """Return the disk as the lab itself holds it."""
        size_bytes = self.lab.pool.disks.size_bytes(disk)
        return self.lab.pool.disks.read(disk, 0, size_bytes)

    def fault(self, name: str, *, count: int = 1, **parameters: Any) -> None:
        self.lab.control.arm_fault(name, count=count, **parameters)


def read_disk(reader: DiskReader, *, onto: bytes = b"") -> bytes:
    """Return what a reader yields, laid onto an older content, having checked the order of its runs."""
    disk = bytearray(onto.ljust(reader.size_bytes, b"\0"))
    end = 0
    for run in reader.runs():
        assert run.offset_bytes >= end
        end = run.offset_bytes + run.length_bytes
        disk[run.offset_bytes : end] = run.data if isinstance(run, DataRun) else bytes(run.length_bytes)
    assert end <= reader.size_bytes
    return bytes(disk)


@contextlib.contextmanager
def pool_world(**options: Any) -> Iterator[World]:
    """Start a lab and log in at it over TLS with its certificate pinned; nothing may be attached at the end."""
    cancel = Cancellation()
    with (
        tiny_lab(**options) as lab,
        open_pool(
            PoolAddress.parse(lab.url),
            Credentials(user=lab.user, password=lab.password),
            PinnedCertificate(lab.fingerprint),
            clock=HurriedClock(),
            entropy=SystemEntropy(),
            cancel=cancel,
        ) as pool,
    ):
        yield World(lab=lab, pool=pool, vm=pool.inventory().find_vm("alpha"), cancel=cancel)
