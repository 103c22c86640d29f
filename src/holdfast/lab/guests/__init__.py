"""Running VMs as a backup meets them: something that writes to its disks."""

from holdfast.lab.guests.actions import DatabaseWritten, FilesChanged, Guest, LogAppended
from holdfast.lab.guests.background import BackgroundWriter, Written

__all__ = ["BackgroundWriter", "DatabaseWritten", "FilesChanged", "Guest", "LogAppended", "Written"]
