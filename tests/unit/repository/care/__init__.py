"""Tests of ``repository/care``."""
