"""The keeper: locks finished objects of a folder on its file server, knows no keys, and speaks to nobody."""

from holdfast.keeper.exchange import (
    HELD_FOLDER,
    KEEPER_FOLDER,
    REQUESTS_FOLDER,
    WORD_FILE,
    HeldFile,
    KeeperWord,
    held_name,
    is_kept,
    parse_held,
    parse_word,
    request_line,
)
from holdfast.keeper.flags import APPEND_ONLY, IMMUTABLE, FileFlags, LinuxFlags
from holdfast.keeper.keeper import Keeper, KeeperDaysInvalid, KeeperFailed, PassReport
from holdfast.keeper.state import KeeperBusy, KeeperStateDamaged
from holdfast.keeper.status import KeeperSilent, KeeperStatus, explain_not_held, read_status
from holdfast.keeper.tree import KeeperNotRoot, KeeperRefused

__all__ = [
    "APPEND_ONLY",
    "HELD_FOLDER",
    "IMMUTABLE",
    "KEEPER_FOLDER",
    "REQUESTS_FOLDER",
    "WORD_FILE",
    "FileFlags",
    "HeldFile",
    "Keeper",
    "KeeperBusy",
    "KeeperDaysInvalid",
    "KeeperFailed",
    "KeeperNotRoot",
    "KeeperRefused",
    "KeeperSilent",
    "KeeperStateDamaged",
    "KeeperStatus",
    "KeeperWord",
    "LinuxFlags",
    "PassReport",
    "explain_not_held",
    "held_name",
    "is_kept",
    "parse_held",
    "parse_word",
    "read_status",
    "request_line",
]
