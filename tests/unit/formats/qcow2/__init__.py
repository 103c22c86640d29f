"""Tests of the qcow2 format."""
