"""Holdfast: backup, replication and restore of the VMs of XCP-ng and XenServer pools."""

__all__ = ["__version__"]

__version__ = "0.1.0"
