"""Promises of the object stores that are not part of the common contract."""
