"""Repositories that were once written: every later version restores them."""
