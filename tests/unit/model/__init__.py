"""Promises of holdfast.model."""
