"""Tests of the VHD format."""
