"""Writing disks: one run under a lease, from blocks to a published point."""
