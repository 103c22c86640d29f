"""Seeded worlds: several actors on one repository, with crashes and faults at any store operation."""
