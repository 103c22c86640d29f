"""Tests of ``repository/records``."""
