"""Changed block tracking: the bitmap in which a pool says what changed between two moments of a disk."""

from holdfast.formats.cbt.read import CbtBitmapDamaged, decode_bitmap, decode_blocks, iter_extents
from holdfast.formats.cbt.write import encode_bitmap

__all__ = ["CbtBitmapDamaged", "decode_bitmap", "decode_blocks", "encode_bitmap", "iter_extents"]
