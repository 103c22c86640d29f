"""Tests of holdfast.runs."""
