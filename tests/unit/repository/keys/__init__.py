"""Tests of ``repository/keys``."""
