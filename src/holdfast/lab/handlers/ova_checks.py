"""What every import asks of a file, and what its errors are called.

An API error passes as it is; whatever else goes wrong becomes ``IMPORT_ERROR`` with the exception's text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from holdfast.lab.context import PoolCore
from holdfast.lab.errors import ApiFailure
from holdfast.lab.handlers.archive import EndOfFile
from holdfast.lab.handlers.ova_collect import pool_version
from holdfast.lab.handlers.ova_document import OvaVersion

__all__ = ["assert_compatible", "reported"]

_RAW = frozenset({"INTERNAL_ERROR", "HANDLE_INVALID"})
"""Codes of exceptions that never were API errors."""


def assert_compatible(pool: PoolCore, version: OvaVersion) -> None:
    """Return when the file is not newer than the pool; ``IMPORT_INCOMPATIBLE_VERSION`` otherwise."""
    own = pool_version(pool)
    if version.pool > (own["xapi_major"], own["xapi_minor"]):
        raise ApiFailure("IMPORT_INCOMPATIBLE_VERSION")


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Give the failures of an import the names that its task tells."""
    try:
        yield
    except EndOfFile as cause:
        raise ApiFailure("IMPORT_ERROR_PREMATURE_EOF") from cause
    except ApiFailure as failure:
        if failure.code in _RAW:
            raise ApiFailure("IMPORT_ERROR", str(failure)) from failure
        raise
