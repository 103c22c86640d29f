"""Promises of holdfast.core."""
