"""What is on the lab's disks: partition tables, real file systems with real files, databases; and how to check them."""

from holdfast.lab.images.boot_record import (
    BootFile,
    BootFileNotFound,
    BootRecord,
    GuestSystem,
    install_boot,
    install_boot_member,
    new_boot_file,
    read_boot_record,
    write_minimal_boot,
)
from holdfast.lab.images.check import FilesystemReport, check_filesystem
from holdfast.lab.images.data_disk import fill_data_disk
from holdfast.lab.images.database import DATABASE_PAGE_BYTES
from holdfast.lab.images.gpt import BOOT_MARKER, GptDamaged, Partition, pack_gpt, read_gpt
from holdfast.lab.images.iso import pack_iso
from holdfast.lab.images.linux_disk import fill_linux_disk
from holdfast.lab.images.machine_disk import fill_prepared_disk, fill_volume_group
from holdfast.lab.images.partitions import partition_places
from holdfast.lab.images.prepared import PREPARED
from holdfast.lab.images.scenarios import SCENARIOS, DiskPlan, VmPlan, fill_disk
from holdfast.lab.images.sparse import materialise, write_back
from holdfast.lab.images.spec import (
    BOOT_PATH,
    DATA_FOLDER,
    DATABASE_PATH,
    DATABASE_PATHS,
    LOG_PATH,
    LOG_PATHS,
    DataDiskSpec,
    DiskSpec,
    LinuxDiskSpec,
    PreparedDiskSpec,
    VolumeGroupSpec,
)
from holdfast.lab.images.superblock import FilesystemKind, has_filesystem
from holdfast.lab.images.template import ImageTooSmall
from holdfast.lab.images.text import Prose, new_generator, noise
from holdfast.lab.images.tools import NO_TOOLS, E2fsprogs, ToolFailed, run_tool
from holdfast.lab.images.volume import FilesystemDamaged, PlacedFile, Volume, open_volume

__all__ = [
    "BOOT_MARKER",
    "BOOT_PATH",
    "DATABASE_PAGE_BYTES",
    "DATABASE_PATH",
    "DATABASE_PATHS",
    "DATA_FOLDER",
    "LOG_PATH",
    "LOG_PATHS",
    "NO_TOOLS",
    "PREPARED",
    "SCENARIOS",
    "BootFile",
    "BootFileNotFound",
    "BootRecord",
    "DataDiskSpec",
    "DiskPlan",
    "DiskSpec",
    "E2fsprogs",
    "FilesystemDamaged",
    "FilesystemKind",
    "FilesystemReport",
    "GptDamaged",
    "GuestSystem",
    "ImageTooSmall",
    "LinuxDiskSpec",
    "Partition",
    "PlacedFile",
    "PreparedDiskSpec",
    "Prose",
    "ToolFailed",
    "VmPlan",
    "Volume",
    "VolumeGroupSpec",
    "check_filesystem",
    "fill_data_disk",
    "fill_disk",
    "fill_linux_disk",
    "fill_prepared_disk",
    "fill_volume_group",
    "has_filesystem",
    "install_boot",
    "install_boot_member",
    "materialise",
    "new_boot_file",
    "new_generator",
    "noise",
    "open_volume",
    "pack_gpt",
    "pack_iso",
    "partition_places",
    "read_boot_record",
    "read_gpt",
    "run_tool",
    "write_back",
    "write_minimal_boot",
]
