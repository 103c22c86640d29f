"""Measurements: our engine beside its peers, on inputs that anybody can build again.

Nothing here is part of the product; it may print. Every figure comes from a run, none is kept in a script.
"""
