"""The command line against the lab."""
