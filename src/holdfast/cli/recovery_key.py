"""A recovery key on the screen, once, and the question that proves that its owner has it."""

from __future__ import annotations

import sys
from pathlib import Path

from holdfast import service
from holdfast.cli.asking import NotAnswered, asking
from holdfast.cli.qr import qr_lines, write_qr
from holdfast.cli.session import Session
from holdfast.cli.unlocking import unlock_from
from holdfast.core import Secret, format_minute
from holdfast.repository import WrongKey

__all__ = ["ask_back", "hand_over", "say_drill", "show_recovery_key"]


def hand_over(
    session: Session, recovery_key: Secret | None, *, repository: str, qr_file: Path | None, drill: bool
) -> dict[str, object]:
    """Show a new recovery key, this once, and ask it back; return what the JSON document says of it.

    Without a key nothing is shown.
    """
    is_proven = False
    if recovery_key is not None:
        show_recovery_key(session, recovery_key, repository=repository, qr_file=qr_file)
        is_proven = ask_back(session, repository=repository, drill=drill)
    return {"recovery_key": recovery_key.reveal() if recovery_key else None, "recovery_key_proven": is_proven}


def show_recovery_key(session: Session, recovery_key: Secret, *, repository: str, qr_file: Path | None = None) -> None:
    """Show a recovery key as text, as a QR code on a terminal, and in a file if one is named."""
    out = session.out
    out.gap()
    out.say(f"Recovery key of repository {repository}, shown this once. Print it or write it down, keep it offline:")
    out.say("without it and without this machine nobody can restore.")
    out.gap()
    out.say(f"    {recovery_key.reveal()}", style="bold")
    out.gap()
    if out.people.is_terminal:
        for line in qr_lines(recovery_key):
            out.say(line, style="black on bright_white")
        out.gap()
    if qr_file is not None:
        write_qr(qr_file, recovery_key)
        out.say(f"The QR code is in {qr_file}. Print it, then delete the file: whoever has it can open the repository.")


def ask_back(session: Session, *, repository: str, drill: bool) -> bool:
    """Return whether the person at the terminal has typed a key that opens the repository; never asked elsewhere."""
    later = f"holdfast repository key drill {repository}"
    if not drill or session.out.as_json or not sys.stdin.isatty():
        session.out.warn(f"Nobody has proven yet that the recovery key is kept and opens the repository: {later}")
        return False
    question = "Type or paste the recovery key to prove that you have it (Enter to do it later): "
    while True:
        sys.stderr.write(question)
        sys.stderr.flush()
        try:
            with asking():
                typed = sys.stdin.readline().strip()
        except NotAnswered:
            typed = ""
        if not typed:
            session.out.warn(f"Not proven: {later}")
            return False
        try:
            done = service.drill(session.workspace, repository, unlock_from(Secret(typed)), cancel=session.cancel)
        except WrongKey:
            question = "That does not open the repository. Look for a mistyped character (Enter to do it later): "
            continue
        say_drill(session, repository, done)
        return done.is_current


def say_drill(session: Session, repository: str, done: service.Drill) -> None:
    """Tell what a key opened, and who else could."""
    out = session.out
    points = f"{done.points} restore points were read with it"
    if done.is_current:
        out.say(f"Proven: the key of {done.holder} opens repository {repository}; {points}.", style="green")
    else:
        out.warn(f"This key opens only what was stored before the data key was rotated; {points}, not the others.")
    if done.unreadable_points:
        out.warn(f"{done.unreadable_points} restore points could not be read.")
    if done.others:
        out.say(f"Who else can open it: {', '.join(f'{each.name} ({each.kind})' for each in done.others)}.")
    else:
        out.warn("Nobody else can open it. Add a second key holder: holdfast repository key add")
    out.say(f"Remembered here: {format_minute(done.proven_at)}.")
