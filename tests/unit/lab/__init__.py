"""The lab pool."""
