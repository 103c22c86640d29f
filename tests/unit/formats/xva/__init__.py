"""Tests of the XVA format."""
