"""Reading disks: planned in large requests, in parallel, proven block by block."""
