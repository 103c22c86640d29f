"""``holdfast pool``: the pools that Holdfast may log in to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from holdfast import service
from holdfast.cli.confirm import confirm, confirm_destruction
from holdfast.cli.nouns import NOUNS
from holdfast.cli.secrets import PASSWORD_VARIABLE, read_secret
from holdfast.cli.session import Common, Session, run_command
from holdfast.core import ExitStatus, HoldfastError, format_bytes
from holdfast.service import TrustKind
from holdfast.xapi import CertificateFacts, Inventory

__all__ = ["app"]

app = App(name="pool", help=NOUNS["pool"])

_NO_COMMON = Common()


class CertificateNotTrusted(HoldfastError):
    """A person, or nobody, said yes to a pool's certificate."""

    code = "pool.certificate-not-trusted"
    exit_status = ExitStatus.REFUSED
    effect = "No password was sent and nothing was stored."

    def __init__(self, *, fingerprint: str, why: str) -> None:
        super().__init__(f"the certificate {fingerprint} was not trusted: {why}")
        self.fingerprint = fingerprint

    def next_step(self) -> str:
        """See ``HoldfastError.next_step``."""
        return f"Compare it on the host, then add the pool with --fingerprint {self.fingerprint}."


@app.command
def add(
    name: str,
    url: str,
    *,
    user: str = "root",
    password_file: Path | None = None,
    fingerprint: str | None = None,
    ca: Path | None = None,
    system_ca: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Remember a pool: log in once, pin its certificate, keep the password sealed for this machine.

    Without --fingerprint, --ca or --system-ca the certificate that the pool shows now is shown to you and pinned when
    you agree. The password is asked for, or read from --password-file or $HOLDFAST_POOL_PASSWORD.

    Example: holdfast pool add prod https://xcp1.example.org

    Parameters
    ----------
    name
        How you will call the pool.
    url
        The pool master's address, e.g. https://xcp1.example.org
    user
        An account with the role vm-power-admin or above.
    password_file
        A file that holds the password.
    fingerprint
        The SHA-256 fingerprint of the certificate, as you know it from elsewhere.
    ca
        A file with the certificate authority that signed the pool's certificate.
    system_ca
        Trust what this machine trusts.
    yes
        Pin the certificate that the pool shows without asking.
    """

    def body(session: Session) -> ExitStatus:
        trust = _decide_trust(session, url, fingerprint=fingerprint, ca=ca, system_ca=system_ca, yes=yes)
        password = read_secret(
            what=f"password of {user}", variable=PASSWORD_VARIABLE, option="--password-file", file=password_file
        )
        config = service.add_pool(
            session.workspace, name=name, url=url, user=user, password=password, trust=trust, cancel=session.cancel
        )
        session.out.say(f"Pool {name} is added. Next: holdfast vm list {name}")
        session.out.result(config)
        return ExitStatus.OK

    return run_command(common, body)


@app.command(name="list")
def list_(*, common: Common = _NO_COMMON) -> int:
    """List the pools that were added; none of them is contacted.

    Example: holdfast pool list
    """

    def body(session: Session) -> ExitStatus:
        pools = service.list_pools(session.workspace)
        rows = [(each.name, each.url, each.user, _trust_text(each.trust)) for each in pools]
        session.out.table(("NAME", "URL", "USER", "TRUST"), rows, empty="No pool yet: holdfast pool add NAME URL")
        session.out.result(pools)
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def show(name: str, *, common: Common = _NO_COMMON) -> int:
    """Log in to a pool and show what it is and holds.

    Example: holdfast pool show prod

    Parameters
    ----------
    name
        The pool.
    """

    def body(session: Session) -> ExitStatus:
        config, inventory = service.show_pool(session.workspace, name, session.cancel)
        out = session.out
        out.say(f"{inventory.pool.name or '(unnamed pool)'}  {inventory.pool.uuid}", style="bold")
        out.say(f"{config.url} as {config.user}, {_trust_text(config.trust)}")
        if config.other_hosts:
            out.say(f"{len(config.other_hosts)} certificates of its hosts are known, so a new master is followed")
        _show_inventory(session, inventory)
        out.result(
            {
                "config": config,
                "pool": inventory.pool,
                "hosts": inventory.hosts,
                "srs": inventory.srs,
                "networks": inventory.networks,
                "vms": len(inventory.vms),
            }
        )
        return ExitStatus.OK

    return run_command(common, body)


@app.command
def clean(
    name: str,
    *,
    all_references: Annotated[bool, Parameter(name="--all", negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _NO_COMMON,
) -> int:
    """Remove from a pool what Holdfast made there and nobody needs any more, by the ledger alone.

    That is what runs left that did not end in order, references into repositories that are not known here, and
    references of VMs that the pool has no more. Restore points are untouched.

    Example: holdfast pool clean prod --dry-run

    Parameters
    ----------
    name
        The pool.
    all_references
        All references; the next backup of each VM reads it in full.
    dry_run
        Print which references would be removed and stop.
    yes
        Do not ask.
    """

    def body(session: Session) -> ExitStatus:
        out = session.out
        plan = service.explain_cleaning(session.workspace, name, everything=all_references, cancel=session.cancel)
        out.say(plan.explain())
        if dry_run:
            out.result({"plan": plan.explain().splitlines()})
            return ExitStatus.OK
        if plan.dropped:
            confirm_destruction(f"{len(plan.dropped)} references are removed from pool {name}", name=name, yes=yes)
        report = service.clean_pool(session.workspace, name, everything=all_references, cancel=session.cancel)
        for what in report.removed:
            out.say(f"removed: {what}")
        for each in report.left:
            out.warn(f"left on the pool: {each.what}: {each.error}")
        out.result({"removed": report.removed, "left": report.left})
        return ExitStatus.OK if not report.left else ExitStatus.FAILED

    return run_command(common, body)


@app.command
def remove(name: str, *, common: Common = _NO_COMMON) -> int:
    """Forget a pool and its password. The pool and all restore points stay as they are.

    What Holdfast keeps on the pool for the next increments stays there too; 'holdfast pool clean' removes it before.

    Example: holdfast pool remove prod

    Parameters
    ----------
    name
        The pool.
    """

    def body(session: Session) -> ExitStatus:
        removed = service.remove_pool(session.workspace, name)
        session.out.say(f"Pool {name} is forgotten. Its restore points are where they were.")
        staying = removed.references + removed.leftovers
        if staying:
            session.out.warn(f"{staying} objects of ours stay on the pool, {removed.leftovers} of them left by runs.")
            session.out.warn(f"  To remove them, add the pool again, then: holdfast pool clean {name} --all")
        session.out.result(removed)
        return ExitStatus.OK

    return run_command(common, body)


def _decide_trust(
    session: Session, url: str, *, fingerprint: str | None, ca: Path | None, system_ca: bool, yes: bool
) -> str:
    if fingerprint is not None:
        return TrustKind.PINNED + fingerprint.removeprefix(TrustKind.PINNED)
    if ca is not None:
        return f"{TrustKind.AUTHORITY}{ca.expanduser().absolute()}"
    if system_ca:
        return TrustKind.AUTHORITY
    facts = service.probe_pool(url)
    if facts is None:
        session.out.warn("This address is not encrypted: the password and all data travel in clear.")
        return TrustKind.PLAIN
    _confirm_certificate(session, facts, yes=yes)
    return TrustKind.PINNED + facts.fingerprint


def _confirm_certificate(session: Session, facts: CertificateFacts, *, yes: bool) -> None:
    out = session.out
    out.say("The pool shows this certificate:")
    out.say(f"  subject      {facts.subject}")
    out.say(f"  issuer       {facts.issuer}")
    out.say(f"  valid until  {facts.not_after:%Y-%m-%d}")
    out.say(f"  SHA-256      {facts.fingerprint}", style="bold")
    if yes:
        return
    if not sys.stdin.isatty():
        raise CertificateNotTrusted(fingerprint=facts.fingerprint, why="nobody is there to ask")
    if not confirm("Pin it, and refuse any other from now on?"):
        raise CertificateNotTrusted(fingerprint=facts.fingerprint, why="you said no")


def _trust_text(trust: str) -> str:
    if trust == TrustKind.PLAIN:
        return "not encrypted"
    if trust.startswith(TrustKind.PINNED):
        return f"pinned {trust.removeprefix(TrustKind.PINNED)[:16]}…"
    return f"CA {trust.removeprefix(TrustKind.AUTHORITY) or 'of this machine'}"


def _show_inventory(session: Session, inventory: Inventory) -> None:
    out = session.out
    out.gap()
    out.table(
        ("HOST", "ADDRESS", "VERSION"),
        [(host.name, host.address, host.version) for host in inventory.hosts],
        empty="no hosts",
    )
    out.gap()
    out.table(
        ("SR", "TYPE", ">SIZE", ">FREE", "SHARED", "CHANGE TRACKING", "=UUID"),
        [
            (
                sr.name,
                sr.kind,
                format_bytes(sr.physical_size_bytes),
                format_bytes(sr.free_bytes),
                "yes" if sr.shared else "no",
                "yes" if sr.supports_cbt else "no",
                sr.uuid,
            )
            for sr in inventory.srs
        ],
        empty="no SRs",
    )
    out.gap()
    out.table(
        ("NETWORK", "BRIDGE", "NBD"),
        [(each.name, each.bridge, "yes" if each.nbd else "no") for each in inventory.networks],
        empty="no networks",
    )
    out.gap()
    out.say(f"{len(inventory.vms)} VMs: holdfast vm list")
