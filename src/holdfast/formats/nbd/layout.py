"""Where the fields of the NBD wire are: structs, magic, numbers and flags, nothing else.

All integers are big-endian. Newstyle negotiation, then simple replies; the page ``docs/formats/nbd.md`` shows the
conversation and what of it a pool speaks.
"""

import enum
import struct

GREETING = struct.Struct(">8s8sH")
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
EXPORT = struct.Struct(">QH")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
INFO_EXPORT = struct.Struct(">HQH")
NAME_LENGTH = struct.Struct(">I")
INFO_COUNT = struct.Struct(">H")

INIT_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003_E889_0455_65A9
REQUEST_MAGIC = 0x2560_9513
SIMPLE_REPLY_MAGIC = 0x6744_6698

EXPORT_PADDING_BYTES = 124
EXPORT_NAME_BYTES_MAX = 4096

INFO_EXPORT_TYPE = 0
REPLY_ERROR_BIT = 1 << 31

PORT = 10809


class HandshakeFlag(enum.IntFlag):
    """What a server says of itself in its greeting."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class ClientFlag(enum.IntFlag):
    """What a client answers to the greeting."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(enum.IntFlag):
    """What can be done with an export."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8


class Option(enum.IntEnum):
    """What a client may ask for during negotiation."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(enum.IntEnum):
    """What a server answers to an option; from ``ERR_UNSUP`` on it refuses."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = REPLY_ERROR_BIT | 1
    ERR_POLICY = REPLY_ERROR_BIT | 2
    ERR_INVALID = REPLY_ERROR_BIT | 3
    ERR_PLATFORM = REPLY_ERROR_BIT | 4
    ERR_TLS_REQD = REPLY_ERROR_BIT | 5
    ERR_UNKNOWN = REPLY_ERROR_BIT | 6
    ERR_SHUTDOWN = REPLY_ERROR_BIT | 7
    ERR_BLOCK_SIZE_REQD = REPLY_ERROR_BIT | 8
    ERR_TOO_BIG = REPLY_ERROR_BIT | 9


class Command(enum.IntEnum):
    """What a client may request of an open export."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class Errno(enum.IntEnum):
    """How a reply says that a request failed; NBD's own numbers, equal to Linux's."""

    OK = 0
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108
