"""Faults of hosts: starting, unreachable, crashed, replaced as master, with another certificate or a wrong clock."""

from __future__ import annotations

from holdfast.lab.faults.kind import FaultKind, FaultManner

__all__ = ["HOST_FAULTS"]

HOST_FAULTS = (
    FaultKind(
        "host-is-slave",
        "A login is answered with HOST_IS_SLAVE naming another address.",
        {"address": "192.0.2.1"},
    ),
    FaultKind("host-still-booting", "A call is answered with HOST_STILL_BOOTING, whatever it asks."),
    FaultKind("host-in-emergency", "A call is answered with HOST_IN_EMERGENCY_MODE, whatever it asks."),
    FaultKind(
        "host-unreachable",
        "The master cannot reach the host that should do the work: CANNOT_CONTACT_HOST.",
        {"method": ""},
    ),
    FaultKind(
        "toolstack-restarts",
        "Sessions and tasks are forgotten and connections cut; nobody answers for so long.",
        {"seconds": 0.0},
        FaultManner.AT_ONCE,
    ),
    FaultKind(
        "master-moves",
        "Another host becomes master, or the one named: sessions and tasks are forgotten, the old master sends away.",
        {"host": ""},
        FaultManner.AT_ONCE,
    ),
    FaultKind(
        "host-crashes",
        "A host dies and starts again: its VMs are halted; started again, their disks lose their change logs.",
        {"host": "", "seconds": 0.0},
        FaultManner.AT_ONCE,
    ),
    FaultKind(
        "certificate-changes",
        "The pool shows a new certificate from now on, over HTTPS and NBD.",
        {},
        FaultManner.AT_ONCE,
    ),
    FaultKind(
        "clock-skewed",
        "The pool's wall clock is wrong by so many seconds, ahead or behind.",
        {"seconds": 3600.0, "direction": "ahead"},
        FaultManner.LASTS,
        {"direction": ("ahead", "behind")},
    ),
)
