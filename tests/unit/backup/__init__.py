"""Tests of holdfast.backup."""
