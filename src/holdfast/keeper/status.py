"""What the keeper of a folder says to anybody who can read the folder: as root or not, through a mount or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.core import Clock, ExitStatus, HoldfastError, format_duration
from holdfast.keeper.exchange import KEEPER_FOLDER, WORD_FILE, KeeperWord, parse_word

__all__ = ["KeeperSilent", "KeeperStatus", "explain_not_held", "read_status"]

_BEHIND_TOLD_S = 3600
"""Less is caught up within hours, and no lock is counted in less than days."""


class KeeperSilent(HoldfastError):
    """No keeper has ever looked at a folder, or its word cannot be read."""

    code = "keeper.silent"
    exit_status = ExitStatus.NOT_FOUND
    effect = "Whoever may write into the folder may delete everything in it."
    advice = "Run 'holdfast keeper run' as root on the file server; see docs/immutability.md."

    def __init__(self, *, folder: str, reason: str) -> None:
        super().__init__(f"no keeper tells of {folder}: {reason}")
        self.folder, self.reason = folder, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperStatus:
    """A keeper's word after its last look, and how long ago that was."""

    word: KeeperWord
    age_s: float

    def explain(self) -> str:
        """Return the status for people, one line."""
        last = f"last look {format_duration(self.age_s)} ago"
        return f"Holds {self.word.held_files} objects, new ones for {self.word.days} days; {last}."

    def remarks(self) -> Iterator[str]:
        """Yield what is not as it should be, one sentence each."""
        if self.word.not_held:
            yield explain_not_held(self.word.not_held)
        if self.word.behind_s > _BEHIND_TOLD_S:
            behind = f"{format_duration(self.word.behind_s)} behind the server's clock"
            yield f"Its own time is {behind}, so locks last that much longer; it catches up by itself."


def explain_not_held(objects: int) -> str:
    """Return why a keeper does not hold some objects."""
    return f"{objects} objects cannot be held: they have a second name, or another owner than the folder."


def read_status(folder: Path, *, clock: Clock) -> KeeperStatus:
    """Return what the keeper of a folder said last. ``KeeperSilent``."""
    path = folder / KEEPER_FOLDER / WORD_FILE
    try:
        word = parse_word(path.read_bytes())
        age_s = max(0.0, clock.now().timestamp() - path.stat().st_mtime)
    except (OSError, ValueError) as cause:
        reason = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
        raise KeeperSilent(folder=str(folder), reason=reason) from cause
    return KeeperStatus(word=word, age_s=age_s)
