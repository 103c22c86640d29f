"""Tests of the NBD wire."""
