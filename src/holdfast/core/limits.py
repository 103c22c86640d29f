"""Every bound in one place, each with its reason.

A queue, loop, retry, cache or listing without a line here is a bug."""

from holdfast.core.units import GIB, MIB

__all__ = [
    "NBD_CONNECTIONS_PER_DISK_MAX",
    "NBD_READ_BYTES",
    "PACK_BYTES_MAX",
    "POOL_DISK_TRANSFERS_MAX",
    "POOL_SNAPSHOTS_AT_ONCE_MAX",
    "RETRY_ATTEMPTS_MAX",
    "RUN_BYTES_MAX",
    "VHD_DISK_BYTES_MAX",
]

PACK_BYTES_MAX = 64 * MIB
"""One S3 part on every provider; a lost upload costs a minute, not an hour."""

RETRY_ATTEMPTS_MAX = 6
"""About two minutes with exponential back-off; longer outages are the run's business, not the call's."""

RUN_BYTES_MAX = 4 * MIB
"""The largest piece of disk that travels through the program at once; bounds memory per connection and per worker."""

NBD_READ_BYTES = 2 * MIB
"""Below 1 MiB the round trip dominates (measured: 64 KiB 1.5 GB/s, 1 MiB 2.8 GB/s on loopback)."""

NBD_CONNECTIONS_PER_DISK_MAX = 4
"""The server answers one request at a time per connection, and a host takes 16 connections for all clients together."""

POOL_SNAPSHOTS_AT_ONCE_MAX = 2
"""Storage operations serialise per SR; more only fills the pool's queue of 100 waiting threads."""

POOL_DISK_TRANSFERS_MAX = 12
"""What Xen Orchestra allows too: beyond it the control domain's CPU is the limit."""

VHD_DISK_BYTES_MAX = 2040 * GIB
"""XAPI's own ceiling for VHD disks; larger disks are qcow2 and are read over NBD."""
