"""File systems made once, with their own tools, and committed without the contents of their files."""

from holdfast.lab.images.prepared.layout import (
    PREPARED_BLOCK_BYTES,
    PreparedFile,
    PreparedFilesystem,
    pack_prepared,
    unpack_prepared,
)
from holdfast.lab.images.prepared.place import (
    PREPARED,
    Writer,
    fill_files,
    load_prepared,
    place_structures,
    placed_files,
)
from holdfast.lab.images.prepared.trees import ESP_LOADER_PATH, WINDOWS_BOOT_PATH

__all__ = [
    "ESP_LOADER_PATH",
    "PREPARED",
    "PREPARED_BLOCK_BYTES",
    "WINDOWS_BOOT_PATH",
    "PreparedFile",
    "PreparedFilesystem",
    "Writer",
    "fill_files",
    "load_prepared",
    "pack_prepared",
    "place_structures",
    "placed_files",
    "unpack_prepared",
]
