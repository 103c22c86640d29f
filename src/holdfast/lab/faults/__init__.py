"""Faults on demand: what can go wrong in a pool, each by name, with parameters and a count, deterministic."""

from holdfast.lab.faults.arming import UNTIL_CLEARED, ArmedFault, Faults, FaultUnknown, FaultValueInvalid
from holdfast.lab.faults.catalogue import FAULT_AREAS, FAULT_KINDS, fault_kinds
from holdfast.lab.faults.kind import FaultKind, FaultManner

__all__ = [
    "FAULT_AREAS",
    "FAULT_KINDS",
    "UNTIL_CLEARED",
    "ArmedFault",
    "FaultKind",
    "FaultManner",
    "FaultUnknown",
    "FaultValueInvalid",
    "Faults",
    "fault_kinds",
]
