"""What is on the lab's disks."""
