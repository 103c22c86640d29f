"""QR codes of recovery keys: on the terminal as half blocks, or in a file that only its owner can read."""

from __future__ import annotations

import io
import os
from pathlib import Path

import segno

from holdfast.core import ExitStatus, HoldfastError, Secret

__all__ = ["QrNotWritten", "check_qr_file", "qr_lines", "write_qr"]

_BORDER_MODULES = 4
_SCALE = 8
_BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


class QrNotWritten(HoldfastError):
    """The file for a QR code cannot be made."""

    code = "cli.qr-not-written"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = "Name a new file that ends in .svg or .png, in a folder that you may write."

    def __init__(self, *, path: Path, why: str) -> None:
        super().__init__(f"no QR code at {path}: {why}")
        self.path, self.why = str(path), why


def qr_lines(secret: Secret) -> list[str]:
    """Return a QR code in half blocks, to be printed in black on white."""
    code = segno.make_qr(secret.reveal(), error="m")
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=_BORDER_MODULES)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return [
        "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]


def check_qr_file(path: Path) -> None:
    """Return when ``write_qr`` is likely to work; asked before there is a key that could be lost. ``QrNotWritten``."""
    if path.suffix not in (".svg", ".png"):
        raise QrNotWritten(path=path, why="its name ends neither in .svg nor in .png")
    if path.exists() or path.is_symlink():
        raise QrNotWritten(path=path, why="there is something of this name already")
    if not path.absolute().parent.is_dir():
        raise QrNotWritten(path=path, why="its folder does not exist")


def write_qr(path: Path, secret: Secret) -> None:
    """Put the QR code of a secret into a new file, mode 0600. ``QrNotWritten``."""
    check_qr_file(path)
    picture = io.BytesIO()
    segno.make_qr(secret.reveal(), error="m").save(picture, kind=path.suffix[1:], scale=_SCALE)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(picture.getvalue())
    except OSError as cause:
        raise QrNotWritten(path=path, why=cause.strerror or str(cause)) from cause
