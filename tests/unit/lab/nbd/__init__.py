"""The lab pool's NBD server."""
