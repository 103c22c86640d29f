"""Whose space it is, and how it comes back."""
