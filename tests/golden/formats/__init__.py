"""Formats of others, held against frozen bytes and recordings."""
