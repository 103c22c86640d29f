"""Tests of ``repository/maps``."""
