"""``holdfast repository key``: the key holders of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from holdfast import service
from holdfast.cli.confirm import confirm_destruction
from holdfast.cli.secrets import PASSPHRASE_VARIABLE, read_new_secret
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, Secret
from holdfast.repository import IdentityHolder, PassphraseHolder

__all__ = ["app", "show_recovery_key"]

app = App(name="key", help="The key holders of a repository: who can open it.")

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
        holders = service.show_repository(session.workspace, name, cancel=session.cancel).holders
        session.out.table(("KEY HOLDER", "KIND"), [(each.name, each.kind) for each in holders], empty="none")
        session.out.result(holders)
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
        Make a new recovery key and show it once.
    passphrase_file
        A file that holds the passphrase; without any option it is asked for.
    """

    def body(session: Session) -> ExitStatus:
        secret: Secret | None = None
        if public_key is not None:
            service.add_holder(session.workspace, name, IdentityHolder(holder, public_key), cancel=session.cancel)
        elif recovery:
            secret = service.new_recovery_holder(session.workspace, name, holder=holder, cancel=session.cancel)
            show_recovery_key(session, secret)
        else:
            chosen = read_new_secret(
                what="new passphrase", variable=PASSPHRASE_VARIABLE, option="--passphrase-file", file=passphrase_file
            )
            service.add_holder(session.workspace, name, PassphraseHolder(holder, chosen), cancel=session.cancel)
        session.out.say(f"{holder} can open repository {name} from now on.")
        session.out.result({"added": holder, "recovery_key": secret.reveal() if secret else None})
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
    """Take a holder's key away. Who has opened the repository before may have kept the repository key itself.

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
        session.out.result(remaining)
        return ExitStatus.OK

    return run_command(common, body)


def show_recovery_key(session: Session, recovery_key: Secret) -> None:
    """Show a recovery key, this once."""
    out = session.out
    out.gap()
    out.say("Recovery key, shown this once. Print it; without it and without this machine nobody can restore:")
    out.gap()
    out.say(f"    {recovery_key.reveal()}", style="bold")
    out.gap()
