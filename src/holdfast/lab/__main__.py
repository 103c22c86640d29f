"""The lab's own process: ``python -m holdfast.lab``. Started by ``spawn_lab``; by hand only to look at it.

A lab that is to die with its parent is told by the kernel where that can tell, and looks for itself where it cannot.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

from holdfast.core import ExitStatus, HoldfastError, Secret, configure_log
from holdfast.lab.disks import DiskStoreInUse
from holdfast.lab.journal import Journal, is_journal
from holdfast.lab.options import LabDelays, LabOptions
from holdfast.lab.process import LAB_LOG, forget_lab_file, tell_refusal, write_lab_file
from holdfast.lab.running import start_lab

_PR_SET_PDEATHSIG = 1
_WATCH_S = 1.0
_PORT_MAX = 65535
_VERBOSITY_LEAST = 1
"""Refusals and faults that fired are always written down: they tell why a rehearsal went as it did."""


def main() -> int:
    """Serve until told to stop by signal or side channel; return the exit status."""
    options, parent_pid = _read_options()
    configure_log(verbosity=_VERBOSITY_LEAST + options.verbosity)
    if is_journal(sys.stderr, options.state_dir / LAB_LOG):
        sys.stderr = Journal(options.state_dir / LAB_LOG)
    orphaned = _Orphaned(parent_pid) if parent_pid is not None else None
    try:
        lab = start_lab(options)
    except HoldfastError as cause:
        sys.stdout.write(tell_refusal(cause) + "\n")
        if not isinstance(cause, DiskStoreInUse):  # the log is that of the lab that runs
            sys.stderr.write(" ".join(f"{cause}. {cause.next_step()}".split()) + "\n")
        return int(cause.exit_status)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whoever started this listens no longer once it answers
    with lab:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: lab.stopped.set())
        if orphaned is not None:
            orphaned.end = lab.stopped.set
        for each in (*lab.companions, lab):  # the first pool last: its file says that all of them answer
            write_lab_file(each)
            each.on_new_face = partial(write_lab_file, each)
        lab.stopped.wait()
    for each in (lab, *lab.companions):
        forget_lab_file(each.options.state_dir, pid=os.getpid())
    return 0


class _Orphaned:
    """Ends this process once its parent is gone: at once while the pool is being made, in good order after."""

    def __init__(self, parent_pid: int) -> None:
        self._parent_pid = parent_pid
        self.end: Callable[[], None] = lambda: os._exit(ExitStatus.INTERRUPTED)
        # The kernel also tells when only the thread that started us has ended, so the signal is no more than a hint.
        signal.signal(signal.SIGUSR1, lambda *_: self._look())
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
        threading.Thread(target=self._watch, name="lab-parent", daemon=True).start()

    def _look(self) -> bool:
        """Return whether the parent is still there, after ending this process when it is not."""
        if os.getppid() == self._parent_pid:
            return True
        self.end()
        return False

    def _watch(self) -> None:
        pause = threading.Event()
        while self._look():
            pause.wait(_WATCH_S)


def _read_options() -> tuple[LabOptions, int | None]:
    """Return what the command line asks for, and the process to die with."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.lab", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--scenario", default="demo")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--plain-port", type=_port, default=0)
    parser.add_argument("--tls-port", type=_port, default=0)
    parser.add_argument("--nbd-port", type=_port, default=0)
    parser.add_argument("--nbd", choices=("tls", "plain", "none"), default="tls")
    parser.add_argument("--user")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--storage-bytes", type=int, default=LabOptions(state_dir=Path()).storage_bytes)
    parser.add_argument("--verbosity", type=int, default=0)
    parser.add_argument("--cbt", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--witness", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--role-users", action="store_true")
    for each in fields(LabDelays):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=float, default=each.default)
    parser.add_argument("--parent-pid", type=int)
    given = parser.parse_args()
    password = "" if sys.stdin.isatty() else sys.stdin.read()
    options = LabOptions(
        state_dir=given.state_dir,
        scenario=given.scenario,
        host=given.host,
        hosts=given.hosts,
        plain_port=given.plain_port,
        tls_port=given.tls_port,
        nbd_port=given.nbd_port,
        nbd=given.nbd,
        cbt=given.cbt,
        witness=given.witness,
        user=given.user,
        password=Secret(password) if password else None,
        role_users=given.role_users,
        seed=given.seed,
        delays=LabDelays(**{each.name: getattr(given, each.name) for each in fields(LabDelays)}),
        dies_with_parent=given.parent_pid is not None,
        storage_bytes=given.storage_bytes,
        verbosity=given.verbosity,
    )
    return options, given.parent_pid


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= _PORT_MAX:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to {_PORT_MAX}")
    return port


if __name__ == "__main__":
    sys.exit(main())
