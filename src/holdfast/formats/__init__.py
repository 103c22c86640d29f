"""Bytes of others: VHD, CBT bitmaps, the NBD wire. One package per format: layout, read, write."""
