"""The flow that turns a restore point into a VM of a pool."""
