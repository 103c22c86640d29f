"""Spoiled objects of every kind: refused by name or harmless, and never a wrong byte restored."""
