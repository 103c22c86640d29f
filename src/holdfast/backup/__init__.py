"""The flow that turns VMs of a pool into restore points."""
