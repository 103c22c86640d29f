"""Disk maps: which blocks make a disk, read, built, compared."""
