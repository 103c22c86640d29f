"""Bounds that several modules, or people who read about them, count on; each with its reason.

A queue, loop, retry, cache or listing without a bound is a bug. What concerns one module alone is bounded by a constant
at that module's head, with its reason too."""

from holdfast.core.units import GIB, MIB

__all__ = [
    "CACHED_OBJECT_BYTES_MAX",
    "CACHE_BYTES_MAX",
    "CLOCKS_APART_S_MAX",
    "LOCKS_REMEMBERED_MAX",
    "LOCK_DAYS_MAX",
    "LOCK_REQUESTS_AT_ONCE_MAX",
    "MAKING_ATTEMPTS_MAX",
    "MAKING_WAIT_S",
    "NBD_CONNECTIONS_PER_DISK_MAX",
    "NBD_OPTION_BYTES_MAX",
    "NBD_READ_AHEAD_MAX",
    "NBD_READ_BYTES",
    "NBD_RECONNECTS_MAX",
    "NBD_REQUEST_BYTES_MAX",
    "NBD_TIMEOUT_S",
    "PACK_BYTES_MAX",
    "PACK_BYTES_MAX_SERVICE",
    "POOL_AWAY_ATTEMPTS_BRIEF_MAX",
    "POOL_AWAY_ATTEMPTS_MAX",
    "POOL_CALL_TIMEOUT_S",
    "POOL_CONNECT_TIMEOUT_S",
    "POOL_EVENT_WAIT_S",
    "POOL_IDLE_CONNECTIONS_MAX",
    "POOL_LOGINS_PER_CALL_MAX",
    "POOL_LOGOUT_TIMEOUT_S",
    "POOL_MASTER_HOPS_MAX",
    "POOL_STALL_TIMEOUT_S",
    "POOL_TASK_LIFE_S",
    "POOL_TASK_WAIT_S_MAX",
    "RETRY_ATTEMPTS_MAX",
    "RUNS_DATABASE_WAIT_S",
    "RUNS_ENGINE_START_S",
    "RUNS_KEPT_MAX",
    "RUN_BYTES_MAX",
    "RUN_DISKS_AT_ONCE_MAX",
    "RUN_FINDINGS_MAX",
    "RUN_NOTES_MAX",
    "SMB_ANSWER_TIMEOUT_S",
    "SMB_CONNECTIONS_MAX",
    "SMB_CONNECT_TIMEOUT_S",
    "SMB_GOODBYE_TIMEOUT_S",
    "SMB_REQUESTS_AHEAD_MAX",
    "SMB_REQUEST_BYTES_MAX",
    "STEP_RESULT_BYTES_MAX",
    "STORE_CONNECT_TIMEOUT_S",
    "STORE_DELETES_AT_ONCE_MAX",
    "STORE_IDLE_CONNECTION_S",
    "STORE_STALL_TIMEOUT_S",
    "STORE_TRANSFER_TIMEOUT_S",
    "TEMPORARY_AGE_S_MIN",
    "TRANSFER_ATTEMPTS_MAX",
    "TRANSFER_WAIT_S",
    "VHD_DISK_BYTES_MAX",
    "VHD_GAP_BYTES_MAX",
    "VM_METADATA_BYTES_MAX",
]

PACK_BYTES_MAX = 64 * MIB
"""One S3 part on every provider; a lost upload costs a minute, not an hour."""

PACK_BYTES_MAX_SERVICE = 32 * MIB
"""For buckets: with packs of half the size a writer's memory holds two on their way while a third is filled. A service
gives each request a part of the line only (measured 2026-11-20 at 64 MiB/s a request: 9.2 s instead of 17.7 s)."""

RETRY_ATTEMPTS_MAX = 6
"""About two minutes with exponential back-off; longer outages are the run's business, not the call's."""

RUN_BYTES_MAX = 4 * MIB
"""The largest piece of disk that travels through the program at once; bounds memory per connection and per worker."""

NBD_READ_BYTES = 2 * MIB
"""Below 1 MiB the round trip dominates (measured: 64 KiB 1.5 GB/s, 1 MiB 2.8 GB/s on loopback)."""

NBD_CONNECTIONS_PER_DISK_MAX = 4
"""The server answers one request at a time per connection, and a host takes 16 connections for all clients together."""

RUN_DISKS_AT_ONCE_MAX = 2
"""Disks of one VM read side by side: hides the round trips of one behind the other; memory is shared, not doubled."""

POOL_TASK_LIFE_S = 24 * 60 * 60
"""A pool destroys pending tasks after a day (xapi-project/xen-api); until then a call of a dead client may complete."""

VHD_DISK_BYTES_MAX = 2040 * GIB
"""XAPI's own ceiling for VHD disks; larger disks are qcow2 and are read over NBD."""

VHD_GAP_BYTES_MAX = 64 * MIB
"""What a VHD stream may carry that is neither table nor block: locators and a batmap are far below 1 MiB, a few lost
blocks fit too. Beyond it a stream could feed us for ever."""

NBD_OPTION_BYTES_MAX = 16 * 1024
"""An export name has at most 4 KiB; what a peer announces beyond this is refused before it is read."""

NBD_REQUEST_BYTES_MAX = 32 * MIB
"""The largest read that the NBD specification lets a client expect to work; bounds the server's buffer."""

TEMPORARY_AGE_S_MIN = 24 * 3600
"""A temporary file of a store that nobody has written to for a day has no writer any more: one put takes minutes."""

RUNS_DATABASE_WAIT_S = 30.0
"""Transactions take milliseconds; who holds the lock for longer is stopped or on a failing disk."""

RUNS_ENGINE_START_S = 60.0
"""A resumed run begins within about a second; a minute means that the engine will not begin it at all."""

RUNS_KEPT_MAX = 2000
"""Finished runs in the history: five a day for a year, about 20 MB. Unfinished ones are never forgotten."""

RUN_FINDINGS_MAX = 10_000
"""Ten for each VM of the largest pools; beyond it nobody reads on, and one last note says so."""

RUN_NOTES_MAX = 2000
"""Lines a run may tell; a record of a few hundred kilobytes still opens at once."""

STEP_RESULT_BYTES_MAX = 16 * MIB
"""A step records facts, not data; the plan of a thousand VMs takes about 1 MB."""

POOL_CALL_TIMEOUT_S = 120.0
"""A call that is not a task answers in milliseconds; a master under storage trouble may take a minute."""

POOL_CONNECT_TIMEOUT_S = 10.0
"""Longer than three SYN retransmissions; a dead host is told soon."""

POOL_EVENT_WAIT_S = 10.0
"""How long event.from may hold a call open; every return is also the moment of a look at the task itself."""

POOL_IDLE_CONNECTIONS_MAX = 16
"""A dozen transfers and a few calls; more idle connections only cost the master memory."""

POOL_AWAY_ATTEMPTS_MAX = 75
"""At a pool that does not answer, four seconds apart, by a run: five minutes. A toolstack restarts within one, a host
within about four; a backup at night that had not waited would be missing in the morning."""

POOL_AWAY_ATTEMPTS_BRIEF_MAX = 4
"""The same where somebody waits for the answer: a dozen seconds, longer than a connection that merely broke."""

POOL_LOGINS_PER_CALL_MAX = 5
"""Sessions that one call may lose in a row: others of the same user push it out where a pool is at its limit of
sessions, and a master that moves takes a moment to settle. Beyond it somebody logs us out on purpose."""

POOL_LOGOUT_TIMEOUT_S = 3.0
"""A pool that is gone must not hold up the end of a run; its session dies by itself."""

POOL_MASTER_HOPS_MAX = 3
"""A member names the master directly; one more hop for a change of master in between, one spare."""

POOL_STALL_TIMEOUT_S = 300.0
"""XAPI itself gives a silent transfer up after five minutes."""

POOL_TASK_WAIT_S_MAX = 86400.0
"""The pool destroys a pending task after 24 hours; nothing is left to wait for."""

NBD_TIMEOUT_S = 60.0
"""A read of 2 MiB from a loaded SR takes seconds at worst; attaching the disk up to half a minute."""

NBD_RECONNECTS_MAX = 5
"""Failures in a row without one good read: about a minute of back-off; a restarting host is the run's business."""

NBD_READ_AHEAD_MAX = 8
"""Reads under way or waiting in order per disk: two per connection, 16 MiB of buffers."""

TRANSFER_ATTEMPTS_MAX = 3
"""Attempts at one disk before its VM is given up. The first failure may be a host that restarts, the second a network
that settles; what was stored is re-used, so a further attempt costs reading, not space."""

TRANSFER_WAIT_S = 15.0
"""Between two attempts at a disk. The NBD client has waited a minute by itself before it gives up; a control domain
needs seconds to let go of a disk."""

MAKING_ATTEMPTS_MAX = 3
"""Attempts at a VM's snapshot, or at a VM of a restore, before it is given up: the first may meet a restart of the
toolstack, the second a disk whose chain is being merged."""

MAKING_WAIT_S = 30.0
"""Between two of them. A call whose answer was lost has mostly ended by then, so that what it made is found and
removed at once; merging one layer of a chain takes about as long."""

VM_METADATA_BYTES_MAX = 4 * MIB
"""A VM's description takes 50 KB, a TPM's contents some more; it travels inside a recorded step."""

LOCK_DAYS_MAX = 3650
"""Ten years. A lock cannot be taken back, so a slip of the finger must not cost a century of storage."""

LOCK_REQUESTS_AT_ONCE_MAX = 16
"""Extensions of locks under way at a time: each waits some 30 ms for its answer, so this makes about 500 a second."""

LOCKS_REMEMBERED_MAX = 131_072
"""Packs whose locks a run remembers: those of 8 TB, in about 25 MB. Of a pack beyond them the store is asked again."""

CLOCKS_APART_S_MAX = 600.0
"""Ten minutes between the pool's clock and ours: more than drift, less than a forgotten time zone."""

STORE_CONNECT_TIMEOUT_S = 10.0
"""Longer than three SYN retransmissions; a service that is down is told soon, and asked again by the retries."""

STORE_STALL_TIMEOUT_S = 60.0
"""A read on which nothing arrives: services answer within seconds, a busy one of our own disks within half a minute."""

STORE_TRANSFER_TIMEOUT_S = 1200.0
"""One request from end to end. A pack of 64 MiB over a tenth of a line of 5 Mbit/s takes 18 minutes."""

STORE_IDLE_CONNECTION_S = 20.0
"""Below the minute after which load balancers forget a connection: a forgotten one costs a failed request."""

STORE_DELETES_AT_ONCE_MAX = 8
"""Removals under way after an attack on a bucket: hides the way to the service, and stays below every request limit."""

SMB_CONNECT_TIMEOUT_S = 10
"""Longer than three SYN retransmissions; a dead server is told soon."""

SMB_ANSWER_TIMEOUT_S = 120.0
"""A NAS that wakes its disks answers after half a minute; one that flushes 64 MiB to a busy array may take longer."""

SMB_GOODBYE_TIMEOUT_S = 3.0
"""A server that is gone must not hold up the end of a command; it forgets the session by itself."""

SMB_CONNECTIONS_MAX = 4
"""Logins that one store holds at a time: enough to hide one thread's waiting behind the others' work; more costs the
server a process each, and Python no longer gains by it."""

SMB_REQUEST_BYTES_MAX = 1024 * 1024
"""One read or write of a share. Measured with Samba on loopback: 64 KiB 120 MiB/s, 256 KiB 260, 1 MiB 500,
8 MiB 280."""

SMB_REQUESTS_AHEAD_MAX = 4
"""Large requests sent before the first of them is answered: hides a round trip of some milliseconds."""

CACHE_BYTES_MAX = 256 * MIB
"""Of one repository on the local disk: some hundred thousand restore points, less than the runs' database may take."""

CACHED_OBJECT_BYTES_MAX = 4 * MIB
"""A restore point takes about 2 KB, one with a TPM some more, a catalogue up to a few MB; anything larger is data."""
