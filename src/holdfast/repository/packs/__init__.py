"""Packs: frames and the objects that hold them, the tables and indexes that lead to them."""
