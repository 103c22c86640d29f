"""The lab pool's disks."""
