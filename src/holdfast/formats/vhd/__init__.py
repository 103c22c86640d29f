"""VHD, the disk format that pools stream and store: read and written forward, and read at random."""

from holdfast.formats.vhd.errors import (
    VhdChainBroken,
    VhdDamaged,
    VhdDiskTooLarge,
    VhdError,
    VhdInterrupted,
    VhdTruncated,
    VhdUnsupported,
)
from holdfast.formats.vhd.file import VhdFile, open_chain
from holdfast.formats.vhd.forward import ERROR_PAGE_BYTES_MAX, ByteStream, ErrorPage, find_error_page
from holdfast.formats.vhd.head import VHD_EPOCH, DiskType, VhdFooter, VhdHead, VhdHeader, allocated_vhd_blocks
from holdfast.formats.vhd.layout import BLOCK_BYTES_USUAL as VHD_BLOCK_BYTES
from holdfast.formats.vhd.stream import VhdBlock, VhdStreamReader, read_vhd_head
from holdfast.formats.vhd.write import (
    VhdParent,
    VhdPlan,
    VhdStyle,
    new_vhd_uuid,
    plan_vhd,
    stream_vhd,
    write_vhd_file,
)

__all__ = [
    "ERROR_PAGE_BYTES_MAX",
    "VHD_BLOCK_BYTES",
    "VHD_EPOCH",
    "ByteStream",
    "DiskType",
    "ErrorPage",
    "VhdBlock",
    "VhdChainBroken",
    "VhdDamaged",
    "VhdDiskTooLarge",
    "VhdError",
    "VhdFile",
    "VhdFooter",
    "VhdHead",
    "VhdHeader",
    "VhdInterrupted",
    "VhdParent",
    "VhdPlan",
    "VhdStreamReader",
    "VhdStyle",
    "VhdTruncated",
    "VhdUnsupported",
    "allocated_vhd_blocks",
    "find_error_page",
    "new_vhd_uuid",
    "open_chain",
    "plan_vhd",
    "read_vhd_head",
    "stream_vhd",
    "write_vhd_file",
]
