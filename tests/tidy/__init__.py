"""Tests that read the source and the documents."""
