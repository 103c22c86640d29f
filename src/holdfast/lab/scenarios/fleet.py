"""``fleet``: a pool of a thousand servers and a second pool for the day when the first one burns.

Every server is a fast clone of one of three golden images, as a large pool's are: its disk is sparse and holds only
what makes it a machine of its own. Invariant: making the pool takes seconds, and no byte of an image is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core import GIB
from holdfast.lab.images import open_volume
from holdfast.lab.options import LabOptions
from holdfast.lab.scenarios.machines import DiskSpec, Fill, MachineSpec
from holdfast.lab.scenarios.systems import DEBIAN, ROCKY, SERVER_2022, System
from holdfast.lab.scenarios.world import World, no_content
from holdfast.lab.volumes import disk_uuid

__all__ = ["RECOVERY_FOLDER", "RECOVERY_SCENARIO", "build_fleet", "build_recovery", "recovery_of"]

RECOVERY_SCENARIO = "fleet-recovery"
RECOVERY_FOLDER = "recovery"
"""Where the second pool keeps its state, in the folder of the first."""

_RECOVERY_VMS = 24
_HALTED_EVERY = 25
_DATA_DISK_EVERY = 4
_HOSTNAME_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Role:
    """Servers of one purpose."""

    name: str
    description: str
    count: int
    system: System
    tags: tuple[str, ...]
    memory_bytes: int = 2 * GIB


_ROLES = (
    _Role(name="web", description="Web front end", count=200, system=DEBIAN, tags=("production", "web")),
    _Role(name="app", description="Application server", count=240, system=ROCKY, tags=("production", "application")),
    _Role(
        name="db",
        description="Database",
        count=80,
        system=ROCKY,
        tags=("production", "database"),
        memory_bytes=8 * GIB,
    ),
    _Role(name="cache", description="Cache", count=60, system=DEBIAN, tags=("production", "application")),
    _Role(name="queue", description="Message queue", count=40, system=DEBIAN, tags=("production", "application")),
    _Role(name="win", description="Terminal server", count=120, system=SERVER_2022, tags=("production", "windows")),
    _Role(name="build", description="Build agent", count=100, system=DEBIAN, tags=("development",)),
    _Role(name="test", description="Test system", count=160, system=ROCKY, tags=("test",)),
)


def recovery_of(options: LabOptions) -> LabOptions:
    """Return the options of the second pool: a folder of its own, ports that are free."""
    return replace(
        options,
        state_dir=options.state_dir / RECOVERY_FOLDER,
        scenario=RECOVERY_SCENARIO,
        hosts=1,
        plain_port=0,
        tls_port=0,
        nbd_port=0,
    )


def build_fleet(world: World) -> None:
    """Make the thousand."""
    golden = {system.reference_label: _Golden.make(world, system) for system in (DEBIAN, ROCKY, SERVER_2022)}
    number = 0
    for role in _ROLES:
        for index in range(1, role.count + 1):
            number += 1
            name = f"{role.name}-{index:03d}"
            world.add(_server(name, role, golden[role.system.reference_label], number=number))


def build_recovery(world: World) -> None:
    """Make the few servers that a site for recovery runs all the time."""
    golden = _Golden.make(world, DEBIAN)
    role = _Role(name="dr", description="Service of the recovery site", count=1, system=DEBIAN, tags=("recovery",))
    for index in range(1, _RECOVERY_VMS + 1):
        world.add(_server(f"dr-{index:03d}", role, golden, number=index))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Golden:
    """A template that servers are cloned from, and where its disk says what it is called."""

    vdi: str
    size_bytes: int
    name_offset_bytes: int
    world: World

    @classmethod
    def make(cls, world: World, system: System) -> _Golden:
        """Make the template."""
        name = f"golden-{system.reference_label}"
        disk = world.system_disk(name, system)
        vm = world.add(
            MachineSpec(
                name=name,
                description=f"Golden image: {system.guest.name}",
                system=system,
                disks=(disk,),
                power="Halted",
                is_template=True,
            )
        )
        db, pool = world.context.db, world.context.pool
        vbds = [vbd for vbd in db.texts("VM", vm, "VBDs") if db.text("VBD", vbd, "type") == "Disk"]
        vdi = db.text("VBD", vbds[0], "VDI")
        files = open_volume(pool.disks, disk_uuid(pool, vdi)).files
        file = next(files[path] for path in ("etc/hostname", "Windows/win.ini") if path in files)
        return cls(vdi=vdi, size_bytes=disk.size_bytes, name_offset_bytes=file.extents[0].offset_bytes, world=world)

    def name_disk(self, name: str) -> Fill:
        """Return what makes a clone's disk that of one machine."""
        content = f"{name}\n".encode().ljust(_HOSTNAME_BYTES, b"\n")
        return lambda uuid: self.world.context.pool.disks.write(uuid, self.name_offset_bytes, content)


def _server(name: str, role: _Role, golden: _Golden, *, number: int) -> MachineSpec:
    disks = [DiskSpec(f"{name} system", golden.size_bytes, golden.name_disk(name), clone_of=golden.vdi)]
    if number % _DATA_DISK_EVERY == 0:
        disks.append(DiskSpec(f"{name} data", (50 + number % 450) * GIB, no_content))
    return MachineSpec(
        name=name,
        description=f"{role.description} {number}",
        tags=role.tags,
        system=role.system,
        memory_bytes=role.memory_bytes,
        disks=tuple(disks),
        host=number,
        power="Halted" if number % _HALTED_EVERY == 0 else "Running",
    )
