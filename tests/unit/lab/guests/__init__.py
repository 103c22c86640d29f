"""Guests that write."""
