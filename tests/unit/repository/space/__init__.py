"""Tests of ``repository/space``."""
