"""Tests of holdfast.restore."""
