"""``holdfast repository key rotate-data``: a new data key for what is stored from now on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from holdfast import service
from holdfast.cli.asking import asking
from holdfast.cli.confirm import NotConfirmed, confirm
from holdfast.cli.secrets import PASSPHRASE_VARIABLE, read_secret
from holdfast.cli.session import Common, Session, run_command
from holdfast.cli.unlocking import unlock_from
from holdfast.core import ExitStatus, Secret
from holdfast.repository import (
    HolderFacts,
    HolderUndecided,
    HolderUnknown,
    IdentityHolder,
    NewHolder,
    PassphraseHolder,
    public_key_of,
)

__all__ = ["rotate_data"]

_NO_COMMON = Common()


def rotate_data(
    name: str,
    *,
    leave_out: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    public_key: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    passphrase_file: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Seal what is stored from now on with a new key. Nothing is rewritten; do it after somebody with a key has left.

    Whoever is left out, or has kept an older key, still reads what was stored until now, and nothing later.

    Example: holdfast repository key rotate-data main --leave-out alice

    Parameters
    ----------
    name
        The repository.
    leave_out
        A holder who does not get the new key; may be repeated.
    public_key
        HOLDER=KEY: the public key of a holder of whom it was never recorded; may be repeated.
    passphrase_file
        HOLDER=FILE: a file with the passphrase of a holder; otherwise it is asked for. May be repeated.
    yes
        Do not ask.
    """

    def body(session: Session) -> ExitStatus:
        holders = [
            each for each in service.list_holders(session.workspace, name, cancel=session.cancel) if each.is_current
        ]
        given, left_out = _decide(holders, leave_out, public_key, passphrase_file)
        goes_on = [each for each in holders if each.name not in left_out]
        out = session.out
        out.table(("GETS THE NEW KEY", "KIND", "=PUBLIC KEY"), [_row(each, given) for each in goes_on], empty="nobody")
        out.say(f"Left out: {', '.join(sorted(left_out)) or 'nobody'}")
        if not yes and not (sys.stdin.isatty() and confirm(f"Rotate the data key of {name}?")):
            raise NotConfirmed(f"The data key of {name} is rotated")
        done = service.rotate_data_key(
            session.workspace, name, goes_on=tuple(given.values()), leave_out=left_out, cancel=session.cancel
        )
        out.say(f"What is stored from now on is sealed with data key {done.epoch}. Nothing was rewritten.")
        out.say("Runs that are under way may go on with the old key until they end.")
        if done.locked_files:
            out.warn(f"{done.locked_files} old key files are locked in the store; they open only what is older.")
        if done.untidy:
            out.warn(f"Old key files are still there, and open only what is older: {done.untidy}")
        out.result(done)
        return ExitStatus.OK

    return run_command(common, body)


def _decide(
    holders: Sequence[HolderFacts],
    leave_out: Sequence[str],
    public_keys: Sequence[str],
    passphrase_files: Sequence[str],
) -> tuple[dict[str, NewHolder], set[str]]:
    """Return what is given or answered for holders of whom no public key is recorded, and who is left out.

    ``HolderUnknown`` before anything is asked.
    """
    for name in (*leave_out, *(_pair(each)[0] for each in (*public_keys, *passphrase_files))):
        if name not in {facts.name for facts in holders}:
            raise HolderUnknown(name=name)
    given: dict[str, NewHolder] = {}
    for holder, key in map(_pair, public_keys):
        given[holder] = IdentityHolder(holder, key)
    for holder, file in map(_pair, passphrase_files):
        given[holder] = PassphraseHolder(holder, _passphrase(holder, Path(file)))
    left_out = set(leave_out)
    for facts in holders:
        if facts.public_key or facts.name in left_out | given.keys():
            continue
        answer = _ask_holder(facts)
        if answer is None:
            left_out.add(facts.name)
        else:
            given[facts.name] = answer
    return given, left_out


def _row(facts: HolderFacts, given: Mapping[str, NewHolder]) -> tuple[str, str, str]:
    answer = given.get(facts.name)
    return facts.name, facts.kind, answer.public if isinstance(answer, IdentityHolder) else facts.public_key or "-"


def _passphrase(holder: str, file: Path | None) -> Secret:
    return read_secret(
        what=f"passphrase of {holder}", variable=PASSPHRASE_VARIABLE, option=f"--passphrase-file {holder}=", file=file
    )


def _pair(text: str) -> tuple[str, str]:
    holder, _, value = text.partition("=")
    return holder, value


def _ask_holder(facts: HolderFacts) -> NewHolder | None:
    """Return what opens a holder, asked for; None when the person leaves the holder out. ``HolderUndecided``."""
    if facts.kind == "passphrase":
        return PassphraseHolder(facts.name, _passphrase(facts.name, None))
    if not sys.stdin.isatty():
        raise HolderUndecided(name=facts.name, kind=facts.kind)
    sys.stderr.write(
        f"The public key of {facts.name} ({facts.kind}) was never recorded.\n"
        "Type it, or the recovery key itself, or Enter to leave this holder out: "
    )
    sys.stderr.flush()
    with asking():
        typed = sys.stdin.readline().strip()
    if not typed:
        return None
    return IdentityHolder(facts.name, public_key_of(unlock_from(Secret(typed))) or typed)
