"""``holdfast repository key``: the key holders of a repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from holdfast import service
from holdfast.cli.confirm import confirm_destruction
from holdfast.cli.key_rotation import rotate_data
from holdfast.cli.qr import check_qr_file
from holdfast.cli.recovery_key import hand_over, say_drill
from holdfast.cli.secrets import PASSPHRASE_VARIABLE, read_new_secret
from holdfast.cli.session import Common, Session, run_command
from holdfast.cli.unlocking import read_unlock
from holdfast.core import ExitStatus, Secret, format_minute
from holdfast.repository import HolderFacts, IdentityHolder, NewHolder, PassphraseHolder, new_recovery_key

__all__ = ["app", "say_holders"]

app = App(name="key", help="The key holders of a repository: who can open it.")
app.command(rotate_data)

_NO_COMMON = Common()


@app.command(name="list")
def key_list(name: str, *, common: Common = _NO_COMMON) -> int:
    """List who can open a repository.

    Example: holdfast repository key list main

    Parameters
    ----------
    name
        The repository.
    """

    def body(session: Session) -> ExitStatus:
        holders = service.list_holders(session.workspace, name, cancel=session.cancel)
        say_holders(session, holders)
        session.out.result(holders)
        return ExitStatus.OK

    return run_command(common, body)


@app.command(name="public")
def key_public(*, common: Common = _NO_COMMON) -> int:
    """Show this machine's public key, by which another machine can let it open a repository.

    Example: holdfast repository key public
    """

    def body(session: Session) -> ExitStatus:
        session.out.say(session.workspace.vault.public_key)
        session.out.result({"name": session.workspace.machine_name, "public_key": session.workspace.vault.public_key})
        return ExitStatus.OK

    return run_command(common, body)


@app.command(name="add")
def key_add(
    name: str,
    holder: str,
    *,
    public_key: str | None = None,
    recovery: Annotated[bool, Parameter(negative="")] = False,
    passphrase_file: Path | None = None,
    qr: Path | None = None,
    drill: bool = True,
    common: Common = _NO_COMMON,
) -> int:
    """Let one more holder open a repository: a passphrase, another recovery key, or somebody's public key.

    Example: holdfast repository key add main alice --public-key "ssh-ed25519 AAAA…"

    Parameters
    ----------
    name
        The repository.
    holder
        How the holder is called.
    public_key
        An age or ssh-ed25519 public key.
    recovery
        Make a new recovery key, show it once and ask it back.
    passphrase_file
        A file that holds the passphrase; without any option it is asked for.
    qr
        Put the QR code of a new recovery key into this file too (.svg or .png).
    drill
        Ask a new recovery key back.
    """

    def body(session: Session) -> ExitStatus:
        fresh, recovery_key = _new_holder(
            holder, public_key=public_key, recovery=recovery, passphrase_file=passphrase_file, qr=qr
        )
        service.add_holder(session.workspace, name, fresh, cancel=session.cancel)
        handed = hand_over(session, recovery_key, repository=name, qr_file=qr, drill=drill)
        session.out.say(f"{holder} can open repository {name} from now on.")
        session.out.result({"added": holder, **handed})
        return ExitStatus.OK

    return run_command(common, body)


@app.command(name="remove")
def key_remove(
    name: str,
    holder: str,
    *,
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Take a holder's key away. Who has opened the repository before may have kept its keys: see 'rotate-data'.

    Example: holdfast repository key remove main passphrase

    Parameters
    ----------
    name
        The repository.
    holder
        The holder.
    yes
        Do not ask.
    """

    def body(session: Session) -> ExitStatus:
        confirm_destruction(f"{holder} can no longer open repository {name}", name=holder, yes=yes)
        remaining = service.remove_holder(session.workspace, name, holder, cancel=session.cancel)
        session.out.say(f"Remaining: {', '.join(each.name for each in remaining)}")
        session.out.say(
            "Whoever kept the key can be kept from what comes later: 'holdfast repository key rotate-data'."
        )
        session.out.result(remaining)
        return ExitStatus.OK

    return run_command(common, body)


@app.command(name="rotate")
def key_rotate(
    name: str,
    holder: str,
    *,
    public_key: str | None = None,
    recovery: Annotated[bool, Parameter(negative="")] = False,
    passphrase_file: Path | None = None,
    qr: Path | None = None,
    drill: bool = True,
    common: Common = _NO_COMMON,
) -> int:
    """Give a holder another passphrase, recovery key or public key; the old one opens until the new one has.

    Example: holdfast repository key rotate main passphrase

    Parameters
    ----------
    name
        The repository.
    holder
        The holder.
    public_key
        The holder's new age or ssh-ed25519 public key.
    recovery
        Make a new recovery key, show it once and ask it back.
    passphrase_file
        A file that holds the new passphrase; without any option it is asked for.
    qr
        Put the QR code of a new recovery key into this file too (.svg or .png).
    drill
        Ask a new recovery key back.
    """

    def body(session: Session) -> ExitStatus:
        fresh, recovery_key = _new_holder(
            holder, public_key=public_key, recovery=recovery, passphrase_file=passphrase_file, qr=qr
        )
        until = service.change_secret(session.workspace, name, fresh, cancel=session.cancel)
        handed = hand_over(session, recovery_key, repository=name, qr_file=qr, drill=drill)
        session.out.say(f"{holder} opens repository {name} with the new key.")
        if until is None:
            session.out.say("The old one does not open it any more.")
        else:
            session.out.warn(f"The old one opens it too until {format_minute(until)}: its file is locked in the store.")
        session.out.result({"rotated": holder, **handed, "old_key_opens_until": until})
        return ExitStatus.OK

    return run_command(common, body)


@app.command(name="drill")
def key_drill(
    name: str,
    *,
    passphrase_file: Path | None = None,
    recovery_key_file: Path | None = None,
    common: Common = _NO_COMMON,
) -> int:
    """Prove that a key is kept and opens a repository: asks for it, opens with nothing else, remembers the date.

    Example: holdfast repository key drill main

    Parameters
    ----------
    name
        The repository.
    passphrase_file
        A file that holds the passphrase; without any file the key is asked for, or read from $HOLDFAST_PASSPHRASE.
    recovery_key_file
        A file that holds the recovery key, or another private key.
    """

    def body(session: Session) -> ExitStatus:
        unlock = read_unlock(passphrase_file=passphrase_file, recovery_key_file=recovery_key_file)
        done = service.drill(session.workspace, name, unlock, cancel=session.cancel)
        say_drill(session, name, done)
        session.out.result(done)
        return ExitStatus.OK if done.is_current else ExitStatus.PARTIAL

    return run_command(common, body)


def say_holders(session: Session, holders: Sequence[HolderFacts]) -> None:
    """Print key holders as a table."""
    rows = [
        (each.name, each.kind, each.public_key or "-", "yes" if each.is_current else "only what is older")
        for each in holders
    ]
    session.out.table(("KEY HOLDER", "KIND", "=PUBLIC KEY", "OPENS"), rows, empty="none")


def _new_holder(
    holder: str, *, public_key: str | None, recovery: bool, passphrase_file: Path | None, qr: Path | None
) -> tuple[NewHolder, Secret | None]:
    """Return how somebody is to open the repository, and the recovery key where one was made for it."""
    if public_key is not None:
        return IdentityHolder(holder, public_key), None
    if recovery:
        if qr is not None:
            check_qr_file(qr)
        made = new_recovery_key()
        return IdentityHolder(holder, made.public), made.secret
    chosen = read_new_secret(
        what="new passphrase", variable=PASSPHRASE_VARIABLE, option="--passphrase-file", file=passphrase_file
    )
    return PassphraseHolder(holder, chosen), None
