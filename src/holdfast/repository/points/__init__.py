"""Restore points: published, read, listed, walked."""
