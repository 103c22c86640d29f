"""A lab pool in this process: everything wired together, listening, and closed again in the right order."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from cryptography import x509

from holdfast.core import Clock, Entropy, Secret, SystemClock, SystemEntropy
from holdfast.lab.attachments import sweep_attachments
from holdfast.lab.calls import add_subject, all_handlers, await_guests, settle_guests
from holdfast.lab.certificate import Certificate, certificate_fields, renew_certificate
from holdfast.lab.client import LabControl
from holdfast.lab.clock import LabClock
from holdfast.lab.collector import resume_collections
from holdfast.lab.context import Context, PoolCore
from holdfast.lab.control import ControlServer
from holdfast.lab.directory import AUTH_TYPE, SERVICE_NAME, Directory
from holdfast.lab.disasters import Disasters
from holdfast.lab.dispatch import Dispatcher
from holdfast.lab.events import Events
from holdfast.lab.faults import Faults
from holdfast.lab.founding import keep_founding
from holdfast.lab.gateway import Gateway
from holdfast.lab.hosts import forget_operations, host_address
from holdfast.lab.housekeeping import Housekeeping
from holdfast.lab.http import HttpServer
from holdfast.lab.listening import HostDoors, MovedDoor, open_doors
from holdfast.lab.operations import Operations
from holdfast.lab.options import LabOptions
from holdfast.lab.places import learn_places
from holdfast.lab.records import Records
from holdfast.lab.scenarios import build_scenario, settle_options, side_pools
from holdfast.lab.sessions import SESSION_SWEEP_S, Sessions
from holdfast.lab.state import LabState
from holdfast.lab.store import RowStore
from holdfast.lab.tasks import TASK_COLLECTION_S, Tasks
from holdfast.lab.workload import Workload

__all__ = ["RunningLab", "start_lab"]

_CERTIFICATE_NAME = "lab-host-1"
_TOKEN_BYTES = 24


@dataclass(slots=True)
class RunningLab:
    """A lab pool that answers. A context manager; leaving the block closes it, its state stays in the folder."""

    pool: PoolCore
    user: str
    password: Secret
    certificate: Certificate
    control: LabControl
    stopped: threading.Event
    """Set when somebody asked the lab to stop over the side channel."""
    options: LabOptions
    """What it was started with."""
    _tls: ssl.SSLContext
    _http: HttpServer
    _doors: tuple[HostDoors, ...]
    _workload: Workload
    companions: list[RunningLab] = field(default_factory=list)
    """The pools that the scenario has beside this one; they end with it."""
    on_new_face: Callable[[], None] = lambda: None
    """Told when the pool shows another certificate than before, or another host is master."""
    _is_closed: bool = field(default=False)

    @property
    def url(self) -> str:
        """HTTPS of the host that is master now."""
        return self._master.url

    @property
    def plain_url(self) -> str:
        """Plain HTTP of the host that is master now."""
        return self._master.plain_url

    @property
    def nbd_address(self) -> tuple[str, int]:
        """NBD of the host that is master now."""
        return self._master.nbd_address

    @property
    def member_urls(self) -> tuple[str, ...]:
        """HTTPS of the other hosts, which answer logins with HOST_IS_SLAVE."""
        master = self._master
        return tuple(each.url for each in self._doors if each is not master)

    @property
    def moved(self) -> tuple[MovedDoor, ...]:
        """The doors that are not where they were at the last run."""
        return tuple(moved for each in self._doors for moved in each.moved)

    @property
    def _master(self) -> HostDoors:
        master = self.pool.master_ref
        return next(each for each in self._doors if each.host == master)

    @property
    def certificate_pem(self) -> str:
        """The certificate of HTTPS and NBD."""
        return self.certificate.pem

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in hex."""
        return self.certificate.fingerprint

    @property
    def connection_count(self) -> int:
        """How many HTTP and NBD connections are open."""
        return self._http.connection_count + sum(each.nbd.connections for each in self._doors)

    def renew_certificate(self) -> None:
        """Show a new certificate from now on, on every door; connections that are open keep the old one."""
        options = self.options
        self.certificate = renew_certificate(
            options.state_dir, name=_CERTIFICATE_NAME, addresses=_addresses(options), clock=self.pool.clock
        )
        self._tls.load_cert_chain(self.certificate.certificate_path, self.certificate.key_path)
        self.pool.certificate_pem = self.certificate.pem
        told = certificate_fields(x509.load_pem_x509_certificate(self.certificate.pem.encode()))
        for row in self.pool.db.rows("Certificate"):
            if row.fields["type"] == "host":
                self.pool.db.update("Certificate", row.ref, told)
        self.on_new_face()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, end every connection, let go of the folder. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        for companion in self.companions:
            companion.close()
        self.pool.chores.close()
        self._workload.close()
        for each in self._doors:
            each.nbd.close()
        self._http.close()
        self.pool.db.close()
        self.pool.disks.close()


def start_lab(options: LabOptions, *, clock: Clock | None = None, entropy: Entropy | None = None) -> RunningLab:
    """Return a lab pool that listens. A folder that holds a pool already is continued, at the same ports.

    A scenario of several pools starts them all, with one user and password; the others are its ``companions``.
    ``LabOptionInvalid``, ``LabStateMismatch``, ``DiskStoreInUse`` when another lab has the folder,
    ``LabFolderNotWritable``, or what is wrong with the state in it: ``LabFolderDamaged``, ``DisksDamaged``,
    ``DiskStoreDamaged``, ``DiskStoreOutdated``, ``LabCertificateDamaged``.
    """
    options = settle_options(options)
    lab = _start_pool(options, threading.Event(), clock=clock, entropy=entropy)
    try:
        for each in side_pools(options):
            beside = replace(each, user=lab.user, password=lab.password)
            lab.companions.append(_start_pool(beside, lab.stopped, clock=clock, entropy=entropy))
    except BaseException:
        lab.close()
        raise
    keep_founding(options)
    return lab


def _start_pool(
    options: LabOptions, stopped: threading.Event, *, clock: Clock | None, entropy: Entropy | None
) -> RunningLab:
    the_entropy = entropy or SystemEntropy()
    state = LabState(options.state_dir, entropy=the_entropy)
    try:
        return _open_pool(state, options, stopped, clock=LabClock(clock or SystemClock()), entropy=the_entropy)
    except BaseException:
        state.close()
        raise


def _open_pool(
    state: LabState, options: LabOptions, stopped: threading.Event, *, clock: LabClock, entropy: Entropy
) -> RunningLab:
    db = state.db
    user, password = state.user(options.user), state.password(options.password)
    certificate = state.certificate(name=_CERTIFICATE_NAME, addresses=_addresses(options), clock=clock)
    clock.on_move(db.wake)
    sessions = Sessions(
        db,
        clock,
        user=user,
        password=password,
        directory=Directory(is_joined=options.role_users),
        pool_secret=Secret(entropy.token_bytes(_TOKEN_BYTES).hex()),
        keep_password=state.keep_password,
    )
    tasks = Tasks(db, clock)
    pool = PoolCore(
        db=db,
        disks=state.disks,
        clock=clock,
        chores=Housekeeping(clock),
        entropy=entropy,
        faults=Faults(),
        sessions=sessions,
        tasks=tasks,
        operations=Operations(db, clock, tasks),
        delays=options.delays,
        address=options.host,
        certificate_pem=certificate.pem,
        certificate_subject=certificate.subject,
    )
    _prepare(pool, state, options)
    return _listen(pool, state.store, options, stopped, user=user, password=password, certificate=certificate)


def _addresses(options: LabOptions) -> list[str]:
    return [host_address(options.host, number) for number in range(options.hosts)]


def _prepare(pool: PoolCore, state: LabState, options: LabOptions) -> None:
    if state.is_new:
        pool.disks.set_witness(enabled=options.witness)
        build_scenario(Context(pool), options)
        settle_guests(pool)
        state.finish(options.scenario)
    else:
        state.check_scenario(options.scenario)
        sweep_attachments(pool)
        resume_collections(pool)
        forget_operations(pool)
        await_guests(pool)


def _admit_role_users(pool: PoolCore) -> None:
    """Give the directory's users the role they are named after; those who once were admitted stay as they are."""
    sessions, context = pool.sessions, Context(pool)
    if not sessions.directory.is_joined or pool.db.count("subject"):
        return
    with pool.db.transaction():
        for account in sessions.directory.accounts:
            role = sessions.rbac.by_label(account.name)
            assert role is not None
            add_subject(context, account, [role.ref])
        for host in pool.db.rows("host"):
            pool.db.update(
                "host", host.ref, {"external_auth_type": AUTH_TYPE, "external_auth_service_name": SERVICE_NAME}
            )


def _listen(
    pool: PoolCore,
    store: RowStore,
    options: LabOptions,
    stopped: threading.Event,
    *,
    user: str,
    password: Secret,
    certificate: Certificate,
) -> RunningLab:
    records = Records(pool.db)
    records.follow_changes()
    events = Events(pool.db, pool.clock, pool.sessions, records.record)
    handlers = all_handlers(events)
    dispatcher = Dispatcher(pool, records, handlers)
    learn_places(pool, dispatcher.methods)
    gateway = Gateway(pool, dispatcher)
    _admit_role_users(pool)
    server = HttpServer()
    doors: list[HostDoors] = []
    tls = certificate.server_context()
    try:
        doors = open_doors(pool, options, store, server, gateway.serve_as, tls)
        token = Secret(pool.entropy.token_bytes(_TOKEN_BYTES).hex())
        workload = Workload(pool)
        control = ControlServer(pool, workload, token, stopped.set, calls=handlers)
        side = server.listen("127.0.0.1", 0, serve=control.serve)
        pool.chores.every("end idle sessions", SESSION_SWEEP_S, pool.sessions.sweep)
        for each in doors:
            each.nbd.start()
        pool.chores.every("collect-tasks", TASK_COLLECTION_S, pool.tasks.collect)
        pool.chores.start()
    except BaseException:
        server.close()
        for each in doors:
            each.nbd.close()
        raise
    lab = RunningLab(
        pool=pool,
        user=user,
        password=password,
        certificate=certificate,
        control=LabControl(side.address, token),
        stopped=stopped,
        options=options,
        _tls=tls,
        _http=server,
        _doors=tuple(doors),
        _workload=workload,
    )
    pool.on_new_master = lambda: lab.on_new_face()
    Disasters(pool, server, doors, renew_certificate=lab.renew_certificate)
    return lab
