"""Tests of ``repository/packs``."""
