"""Tests of holdfast.service."""
