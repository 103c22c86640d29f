"""``holdfast repository``: where restore points live, and who can open it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from holdfast import service
from holdfast.cli.confirm import confirm_destruction
from holdfast.cli.nouns import NOUNS
from holdfast.cli.place_options import NO_PLACE_OPTIONS, PlaceOptions, given_credentials
from holdfast.cli.places import remembered_location
from holdfast.cli.qr import check_qr_file
from holdfast.cli.recovery_key import hand_over
from holdfast.cli.repository_cost import cost
from holdfast.cli.repository_key import app as key
from holdfast.cli.repository_key import say_holders
from holdfast.cli.repository_limit import limit
from holdfast.cli.repository_lock import lock, lock_new, say_protection
from holdfast.cli.repository_mirror import mirror
from holdfast.cli.repository_scrub import heal, scrub
from holdfast.cli.repository_space import gc, usage
from holdfast.cli.repository_test import examine, say_findings
from holdfast.cli.repository_undelete import undelete
from holdfast.cli.secrets import PASSPHRASE_VARIABLE, read_new_secret
from holdfast.cli.session import Common, Session, run_command
from holdfast.cli.unlocking import read_unlock
from holdfast.core import ExitStatus, format_bytes, format_minute
from holdfast.repository import Compression

__all__ = ["app"]

app = App(name="repository", help=NOUNS["repository"])
_PLACE = Group("The place", sort_key=1)
_SPACE = Group("Space", sort_key=2)
_CARE = Group("Sound data, and a second copy", sort_key=3)
_PROTECTION = Group("Protection against deletion", sort_key=4)
app.command(key)
app.command(examine, name="test", group=_PLACE)
app.command(limit, group=_PLACE)
app.command(cost, group=_PLACE)
app.command(gc, group=_SPACE)
app.command(usage, group=_SPACE)
app.command(scrub, group=_CARE)
app.command(heal, group=_CARE)
app.command(mirror, group=_CARE)
app.command(lock, group=_PROTECTION)
app.command(undelete, group=_PROTECTION)

_NO_COMMON = Common()


@app.command
def create(
    name: str,
    location: str,
    *,
    passphrase: Annotated[bool, Parameter(negative="")] = False,
    passphrase_file: Path | None = None,
    no_secret: Annotated[bool, Parameter(negative="")] = False,
    small: Annotated[bool, Parameter(negative="")] = False,
    immutable: str | None = None,
    qr: Path | None = None,
    drill: bool = True,
    place: PlaceOptions = NO_PLACE_OPTIONS,
    common: Common = _NO_COMMON,
) -> int:
    """Make an encrypted repository in an empty folder or bucket and show its recovery key, once.

    Who can open it: whoever has the recovery key, this machine, and whoever knows the passphrase if you choose one.

    Example: holdfast repository create main /srv/backup/holdfast

    Parameters
    ----------
    name
        How you will call the repository.
    location
        A folder that is empty or does not exist yet, local or mounted; or s3://BUCKET/PREFIX,
        azure://ACCOUNT/CONTAINER/PREFIX, smb://SERVER/SHARE/FOLDER.
    passphrase
        Choose a passphrase as well; it is asked for, or read from $HOLDFAST_PASSPHRASE.
    passphrase_file
        A file that holds the passphrase.
    no_secret
        No key at all: whoever can read the folder can read everything.
    small
        Compress harder: about 5 % smaller, for more CPU time.
    immutable
        Hold each restore point against deletion by anybody for so many days, for instance 30d.
    qr
        Put the QR code of the recovery key into this file too (.svg or .png).
    drill
        Ask the recovery key back, which proves that you have it.
    """

    def body(session: Session) -> ExitStatus:
        if qr is not None:
            check_qr_file(qr)
        lock_days = None if immutable is None else service.parse_lock_days(immutable)
        chosen = None
        if passphrase or passphrase_file is not None:
            chosen = read_new_secret(
                what="new passphrase", variable=PASSPHRASE_VARIABLE, option="--passphrase-file", file=passphrase_file
            )
        created = service.create_repository(
            session.workspace,
            name=name,
            location=remembered_location(location),
            passphrase=chosen,
            without_secret=no_secret,
            compression=Compression.SMALL if small else Compression.STANDARD,
            options=place.store_options(),
            credentials=given_credentials(place.credentials, location=location),
            cancel=session.cancel,
        )
        out = session.out
        out.say(f"Repository {name} is ready at {created.config.location}.")
        handed = hand_over(session, created.recovery_key, repository=name, qr_file=qr, drill=drill)
        if created.recovery_key is None:
            out.warn("It has no secret: whoever can read the folder can read every VM in it.")
        locked = lock_new(session, name, lock_days) if lock_days else None
        out.result({"repository": created.config, "locked": locked, **handed})
        return ExitStatus.FAILED if lock_days and locked is None else ExitStatus.OK

    return run_command(common, body)


@app.command
def connect(
    name: str,
    location: str,
    *,
    passphrase_file: Path | None = None,
    recovery_key_file: Path | None = None,
    no_secret: Annotated[bool, Parameter(negative="")] = False,
    place: PlaceOptions = NO_PLACE_OPTIONS,
    common: Common = _NO_COMMON,
) -> int:
    """Use a repository that exists already, for instance after this machine was replaced.

    Opens it with the recovery key or the passphrase, once; from then on this machine has a key of its own.

    Example: holdfast repository connect main /srv/backup/holdfast --recovery-key-file key.txt

    Parameters
    ----------
    name
        How you will call the repository.
    location
        Its folder or URL, as when it was made; the options of a service as well.
    passphrase_file
        A file that holds the passphrase; without any file it is asked for, or read from $HOLDFAST_PASSPHRASE.
    recovery_key_file
        A file that holds the recovery key, or another private key: this machine's own, where it is a holder already, is
        $HOLDFAST_HOME/secrets/machine.key.
    no_secret
        The repository was created without a secret.
    """

    def body(session: Session) -> ExitStatus:
        unlock = read_unlock(passphrase_file=passphrase_file, recovery_key_file=recovery_key_file, no_secret=no_secret)
        config = service.connect_repository(
            session.workspace,
            name=name,
            location=remembered_location(location),
            unlock=unlock,
            options=place.store_options(),
            credentials=given_credentials(place.credentials, location=location),
            cancel=session.cancel,
        )
        session.out.say(f"Repository {name} is connected. Next: holdfast point list --repository {name}")
        session.out.result(config)
        return ExitStatus.OK

    return run_command(common, body)


@app.command(name="list")
def list_(*, common: Common = _NO_COMMON) -> int:
    """List the repositories that are known here; none of them is opened.

    Example: holdfast repository list
    """

    def body(session: Session) -> ExitStatus:
        known = service.list_repositories(session.workspace)
        rows = [(each.name, each.location, each.repository) for each in known]
        empty = "No repository yet: holdfast repository create NAME FOLDER"
        session.out.table(("NAME", "LOCATION", "ID"), rows, empty=empty)
        session.out.result(known)
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def show(name: str, *, common: Common = _NO_COMMON) -> int:
    """Open a repository and show what it holds, what it takes, and who can open it.

    Example: holdfast repository show main

    Parameters
    ----------
    name
        The repository.
    """

    def body(session: Session) -> ExitStatus:
        overview = service.show_repository(session.workspace, name, cancel=session.cancel)
        out = session.out
        out.say(f"{name}  {overview.config.repository}", style="bold")
        out.say(f"at {overview.location}: {overview.points} points of {overview.vms} VMs")
        rows = [(each.kind, str(each.objects), format_bytes(each.length_bytes)) for each in overview.usage.kinds]
        out.table(("KIND", ">OBJECTS", ">SIZE"), rows, empty="empty")
        if overview.free_bytes is not None:
            out.say(f"{format_bytes(overview.free_bytes)} free")
        say_findings(session, overview.findings)
        if overview.damaged:
            some = f"such as {overview.damaged[-1]}: holdfast repository scrub {name} --status"
            out.say(f"DAMAGED: {len(overview.damaged)} restore points have lost data, {some}", style="bold red")
        say_protection(session, overview.protection)
        out.gap()
        say_holders(session, overview.holders)
        for holder, moment in sorted(overview.config.keys.proven.items()):
            out.say(f"{holder}: key last proven {format_minute(moment)}")
        if overview.data_key_epoch:
            out.say(f"Data key number {overview.data_key_epoch}; what is older is sealed with those before it.")
        for each in overview.advice:
            out.warn(each)
        out.result(overview)
        return ExitStatus.OK

    return run_command(common, body)


@app.command(group=_PLACE)
def credentials(name: str, reference: str, *, common: Common = _NO_COMMON) -> int:
    """Use other credentials for a repository's place, once they have opened it; until then the old ones stay.

    Example: holdfast repository credentials offsite file:/etc/holdfast/offsite.keys

    Parameters
    ----------
    name
        The repository.
    reference
        Where they are kept: env, env:PREFIX, file:PATH, or sealed, which asks for them (or reads NAME=value lines from
        stdin) and keeps them sealed for this machine.
    """

    def body(session: Session) -> ExitStatus:
        location = session.workspace.registry.repository(name).location
        config = service.change_credentials(
            session.workspace,
            name,
            credentials=given_credentials(reference, location=location),
            cancel=session.cancel,
        )
        session.out.say(f"Repository {name} opens with the new credentials ({config.credentials}).")
        session.out.result(config)
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def remove(name: str, *, yes: Annotated[bool, Parameter(negative="")] = False, common: Common = _NO_COMMON) -> int:
    """Forget a repository here. Everything in it stays where it is; 'repository connect' brings it back.

    Example: holdfast repository remove main

    Parameters
    ----------
    name
        The repository.
    yes
        Do not ask.
    """

    def body(session: Session) -> ExitStatus:
        confirm_destruction(
            f"Repository {name} is forgotten on this machine; its data stays, and you need the recovery key, "
            "the passphrase or this machine's key to connect it again",
            name=name,
            yes=yes,
        )
        service.remove_repository(session.workspace, name)
        session.out.say(f"Repository {name} is forgotten here. Its data is where it was.")
        session.out.result({"removed": name})
        return ExitStatus.OK

    return run_command(common, body)
