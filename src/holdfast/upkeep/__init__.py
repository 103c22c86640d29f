"""Keeping house: what runs left on pools is found by the ledger and removed."""

from holdfast.upkeep.sweep import SweepReport, lines_to_sweep, sweep_ledger

__all__ = ["SweepReport", "lines_to_sweep", "sweep_ledger"]
