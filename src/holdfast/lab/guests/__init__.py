"""Running VMs as a backup meets them: something that writes to its disks."""

from holdfast.lab.guests.actions import DatabaseWritten, FilesChanged, Guest, LogAppended
from holdfast.lab.guests.background import BackgroundWriter, Written
from holdfast.lab.guests.boot import BootState, read_boot_state
from holdfast.lab.guests.memory import MemoryImage, read_memory_image, write_memory_image

__all__ = [
    "BackgroundWriter",
    "BootState",
    "DatabaseWritten",
    "FilesChanged",
    "Guest",
    "LogAppended",
    "MemoryImage",
    "Written",
    "read_boot_state",
    "read_memory_image",
    "write_memory_image",
]
