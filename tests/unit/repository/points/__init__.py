"""Tests of ``repository/points``."""
