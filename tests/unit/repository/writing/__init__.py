"""Tests of ``repository/writing``."""
