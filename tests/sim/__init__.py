"""Seeded worlds with faults."""
