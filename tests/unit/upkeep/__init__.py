"""Tests of holdfast.upkeep."""
