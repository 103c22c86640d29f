"""The lab: a simulated pool that speaks the real protocols on real sockets, with disks, guests and faults on demand."""

from holdfast.lab.client import FilesystemTold, LabControl, LabRefused, LabUnreachable
from holdfast.lab.faults import FAULT_KINDS, FaultKind
from holdfast.lab.options import LabDelays, LabOptions
from holdfast.lab.process import LabDidNotStart, LabHandle, read_lab, spawn_lab
from holdfast.lab.running import LabStateMismatch, RunningLab, start_lab
from holdfast.lab.scenarios import SCENARIOS, ScenarioUnknown
from holdfast.lab.workload import GuestNotRunning

__all__ = [
    "FAULT_KINDS",
    "SCENARIOS",
    "FaultKind",
    "FilesystemTold",
    "GuestNotRunning",
    "LabControl",
    "LabDelays",
    "LabDidNotStart",
    "LabHandle",
    "LabOptions",
    "LabRefused",
    "LabStateMismatch",
    "LabUnreachable",
    "RunningLab",
    "ScenarioUnknown",
    "read_lab",
    "spawn_lab",
    "start_lab",
]
