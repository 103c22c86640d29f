"""Tests of ``repository/reading``."""
