"""The composition root: the only place where objects are wired and settings are read."""

from holdfast.daemon.compose import build_workspace
from holdfast.daemon.credentials import CredentialsNotPrivate
from holdfast.daemon.registry import ConfigDamaged, ConfigNotWritable, FileRegistry, NameInvalid, write_private_file
from holdfast.daemon.settings import Settings, read_settings
from holdfast.daemon.vault import FileVault, MachineKeyDamaged

__all__ = [
    "ConfigDamaged",
    "ConfigNotWritable",
    "CredentialsNotPrivate",
    "FileRegistry",
    "FileVault",
    "MachineKeyDamaged",
    "NameInvalid",
    "Settings",
    "build_workspace",
    "read_settings",
    "write_private_file",
]
