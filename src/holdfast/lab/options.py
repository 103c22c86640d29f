"""What a lab pool can be told at its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast.core import TIB, ExitStatus, HoldfastError, Secret

__all__ = ["HOSTS_MAX", "REAL_DELAYS", "LabDelays", "LabOptionInvalid", "LabOptions", "LabStateMismatch", "NbdPurpose"]

HOSTS_MAX = 64
"""A pool has at most so many; each takes three ports of the machine."""


NbdPurpose = Literal["tls", "plain", "none"]
"""How the management network offers NBD: encrypted, insecure, or not at all."""


class LabOptionInvalid(HoldfastError):
    """A lab was asked for that there is none of."""

    code = "lab.option-invalid"
    exit_status = ExitStatus.USAGE
    effect = "No lab was started."

    def __init__(self, *, option: str, given: str, choices: Sequence[str]) -> None:
        super().__init__(f"{given!r} is no {option} of the lab")
        self.option, self.given = option, given
        self.choices = ", ".join(choices)

    def next_step(self) -> str:
        """Return what there is."""
        return f"Choose one of: {self.choices}."


class LabStateMismatch(HoldfastError):
    """The folder holds a pool that was made otherwise than it is now asked for."""

    code = "lab.state-mismatch"
    exit_status = ExitStatus.REFUSED
    effect = "No lab was started; the pool in the folder is as it was."
    advice = "Leave the option out to start what the folder holds, or name another folder with --state."

    def __init__(self, *, what: str, held: object, wanted: object) -> None:
        super().__init__(f"the lab's folder holds a pool with {what} {held}, not {wanted}")
        self.what, self.held, self.wanted = what, str(held), str(wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabDelays:
    """How long the slow things take. The defaults keep tests quick; a demonstration may choose a pool's own."""

    plug_s: float = 0.0
    """Attaching a disk to the control domain: 0.5 to 3 s on a real host."""
    unplug_s: float = 0.05
    """Detaching it again; the disk is in use until then."""
    snapshot_s: float = 0.0
    """Snapshotting one disk: 1 to 10 s on a real host."""
    linger_s: float = 0.5
    """How long a finished transfer's connection stays open. Some clients abort when the close arrives together with the
    last byte."""
    tools_s: float = 0.2
    """From the start of a VM to the first report of the tools in its guest: about 20 s on a real host."""
    data_destroy_wait_s: float = 4.0
    """How long data_destroy waits for the disk to be free; not configurable on a real host."""


REAL_DELAYS = LabDelays(plug_s=1.0, unplug_s=1.0, snapshot_s=3.0, tools_s=20.0)
"""What a real host of middling speed takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """A lab pool to be. Ports that are 0 are those of its folder's last run, or chosen freely."""

    state_dir: Path
    scenario: str = "demo"
    host: str = "127.0.0.1"
    hosts: int = 1
    """With 2, a member host listens too; logins there are answered with HOST_IS_SLAVE."""
    plain_port: int = 0
    tls_port: int = 0
    nbd_port: int = 0
    nbd: NbdPurpose = "tls"
    cbt: bool = True
    """Whether the disks of the scenario start with change tracking switched on."""
    witness: bool = True
    """Keep the data of destroyed snapshots aside, so that their hash can still be asked for."""
    user: str | None = None
    """When not given, that of the folder's last run, or root."""
    password: Secret | None = None
    """When not given, that of the folder's last run, or chosen at random."""
    role_users: bool = False
    """Whether the pool has joined a directory with one user per role, named like it, with the lab's password."""
    seed: int | None = None
    """Makes the contents of the disks repeatable."""
    storage_bytes: int = 2 * TIB
    """What the repository for the VMs' disks holds."""
    delays: LabDelays = field(default_factory=LabDelays)
    dies_with_parent: bool = False
    """Whether a lab in a process of its own ends when the process that started it is gone, however that ended."""
    verbosity: int = 0
    """How much a lab in a process of its own writes down; with 1 every call."""
