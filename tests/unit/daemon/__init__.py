"""Tests of holdfast.daemon."""
