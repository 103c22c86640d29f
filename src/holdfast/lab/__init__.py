"""The lab: a simulated pool that speaks the real protocols on real sockets, with disks, guests and faults on demand."""

from holdfast.lab.client import FilesystemTold, LabControl, LabFailed, LabRefused, LabUnreachable
from holdfast.lab.faults import FAULT_AREAS, FAULT_KINDS, UNTIL_CLEARED, FaultKind, FaultManner, fault_kinds
from holdfast.lab.founding import LabWishes, resume_options
from holdfast.lab.listening import LabPortUnusable, MovedDoor
from holdfast.lab.options import (
    HOSTS_MAX,
    REAL_DELAYS,
    LabDelays,
    LabOptionInvalid,
    LabOptions,
    LabStateMismatch,
    NbdPurpose,
)
from holdfast.lab.process import LAB_LOG, LabAlreadyRuns, LabDidNotStart, LabHandle, read_lab, spawn_lab
from holdfast.lab.removal import LabNotThere, LabRemoval, LabStillRuns, apply_removal, plan_removal
from holdfast.lab.running import RunningLab, start_lab
from holdfast.lab.scenarios import SCENARIO_SUMMARIES, SCENARIOS
from holdfast.lab.state import LabFolderDamaged, LabFolderNotWritable
from holdfast.lab.unanswered import unanswered_calls
from holdfast.lab.workload import GuestNotRunning

__all__ = [
    "FAULT_AREAS",
    "FAULT_KINDS",
    "HOSTS_MAX",
    "LAB_LOG",
    "REAL_DELAYS",
    "SCENARIOS",
    "SCENARIO_SUMMARIES",
    "UNTIL_CLEARED",
    "FaultKind",
    "FaultManner",
    "FilesystemTold",
    "GuestNotRunning",
    "LabAlreadyRuns",
    "LabControl",
    "LabDelays",
    "LabDidNotStart",
    "LabFailed",
    "LabFolderDamaged",
    "LabFolderNotWritable",
    "LabHandle",
    "LabNotThere",
    "LabOptionInvalid",
    "LabOptions",
    "LabPortUnusable",
    "LabRefused",
    "LabRemoval",
    "LabStateMismatch",
    "LabStillRuns",
    "LabUnreachable",
    "LabWishes",
    "MovedDoor",
    "NbdPurpose",
    "RunningLab",
    "apply_removal",
    "fault_kinds",
    "plan_removal",
    "read_lab",
    "resume_options",
    "spawn_lab",
    "start_lab",
    "unanswered_calls",
]
