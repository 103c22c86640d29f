"""Keeping house: what runs left on pools is found by the ledger and removed."""

from holdfast.upkeep.sweep import SweepReport, sweep_ledger

__all__ = ["SweepReport", "sweep_ledger"]
