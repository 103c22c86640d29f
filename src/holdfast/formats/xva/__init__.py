"""XVA, the archive in which pools export whole VMs: read and written forward."""

from holdfast.formats.xva.errors import XvaDamaged, XvaError, XvaTruncated
from holdfast.formats.xva.layout import BLOCK_BYTES as XVA_BLOCK_BYTES
from holdfast.formats.xva.layout import CHECKSUM_SUFFIX as XVA_CHECKSUM_SUFFIX
from holdfast.formats.xva.layout import DESCRIPTION_NAME as XVA_DESCRIPTION_NAME
from holdfast.formats.xva.layout import LEGACY_CHECKSUM_SUFFIX as XVA_LEGACY_CHECKSUM_SUFFIX
from holdfast.formats.xva.layout import RECORD_BYTES as XVA_RECORD_BYTES
from holdfast.formats.xva.read import XvaArchive, XvaBlock, XvaMember, XvaReader
from holdfast.formats.xva.write import XvaWriter, block_checksum, xva_header

__all__ = [
    "XVA_BLOCK_BYTES",
    "XVA_CHECKSUM_SUFFIX",
    "XVA_DESCRIPTION_NAME",
    "XVA_LEGACY_CHECKSUM_SUFFIX",
    "XVA_RECORD_BYTES",
    "XvaArchive",
    "XvaBlock",
    "XvaDamaged",
    "XvaError",
    "XvaMember",
    "XvaReader",
    "XvaTruncated",
    "XvaWriter",
    "block_checksum",
    "xva_header",
]
