"""A lab pool in a process of its own: started, found again by its folder, and stopped.

``lab.json`` in the folder says where the lab listens and how to log in; it is readable by its owner alone, written when
the lab answers, and removed when it ends. Invariant: a process is known by its number and its start time, because a
number is given away again; nothing is ever signalled that is not the lab that wrote the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

from holdfast.core import Cancellation, Clock, ExitStatus, HoldfastError, Secret, SystemClock
from holdfast.lab.client import LabControl, LabRefused, LabUnreachable
from holdfast.lab.disks import DiskStoreInUse
from holdfast.lab.listening import MovedDoor
from holdfast.lab.options import LabOptionInvalid, LabOptions
from holdfast.lab.running import RunningLab
from holdfast.lab.scenarios import SCENARIO_SUMMARIES, SCENARIOS
from holdfast.lab.state import prepare_folder
from holdfast.model import JsonObject

__all__ = [
    "LAB_LOG",
    "LabAlreadyRuns",
    "LabDidNotStart",
    "LabHandle",
    "LabStartRefused",
    "forget_lab_file",
    "read_lab",
    "spawn_lab",
    "tell_refusal",
    "write_lab_file",
]

_FILE = "lab.json"
LAB_LOG = "lab.log"
"""The file in a lab's folder that its process writes to."""
_START_S_MAX = 300.0
_STOP_S_MAX = 15.0
_LOOK_S = 0.05


class LabAlreadyRuns(HoldfastError):
    """A lab was to be started on a folder whose lab runs, or is being started by somebody else."""

    code = "lab.already-runs"
    exit_status = ExitStatus.BUSY
    effect = "The lab that runs goes on; nothing was started."

    def __init__(self, *, folder: Path, url: str | None) -> None:
        super().__init__(f"a lab pool runs on {folder} already" + (f", at {url}" if url else ""))
        self.folder, self.url = str(folder), url

    def next_step(self) -> str:
        """Return how to use it or stop it."""
        return f"Use it as it is, or stop it with 'holdfast lab stop --state {self.folder}' and start again."


class LabDidNotStart(HoldfastError):
    """The lab's process ended, or said nothing, before it answered."""

    code = "lab.did-not-start"
    exit_status = ExitStatus.FAILED
    effect = "No lab runs on this folder; no repository was touched."

    def __init__(self, *, folder: Path, reason: str) -> None:
        super().__init__(f"the lab in {folder} did not start: {reason}")
        self.folder, self.reason = str(folder), reason

    def next_step(self) -> str:
        """Return where the reason is written."""
        return f"Read {self.folder}/{LAB_LOG}, remove the cause, and start it again."


class LabStartRefused(LabDidNotStart):
    """The lab's process understood why it cannot start: what it says, under the code of its own error."""

    code = "lab.start-refused"

    def __init__(self, *, folder: Path, told: JsonObject) -> None:
        super().__init__(folder=folder, reason=str(told["message"]))
        self.code, self.effect, self.advice = str(told["code"]), str(told["effect"]), str(told["next_step"])
        self.exit_status = ExitStatus(cast(int, told["exit_status"]))

    def next_step(self) -> str:
        """Return what the lab's own error advises."""
        return self.advice

    def facts(self) -> dict[str, str | int | float | bool | None]:
        """See ``HoldfastError.facts``."""
        return {"folder": self.folder, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabHandle:
    """A lab in another process."""

    state_dir: Path
    pid: int
    started_ticks: int
    """When the process began, in the kernel's ticks since boot: with ``pid`` it names one process for good."""
    scenario: str
    url: str
    plain_url: str
    nbd_address: tuple[str, int]
    user: str
    password: Secret
    fingerprint: str
    certificate_pem: str
    control: LabControl
    moved: tuple[MovedDoor, ...] = ()
    """The doors that are not where they were at the last run, because something else listens there."""
    companion_folders: tuple[Path, ...] = ()
    """The state of the pools that the scenario has beside this one, in the same process."""

    @property
    def companions(self) -> tuple[LabHandle, ...]:
        """The pools beside this one that run."""
        found = (read_lab(folder) for folder in self.companion_folders)
        return tuple(each for each in found if each is not None)

    @property
    def is_alive(self) -> bool:
        """Whether the process is there, answering or not."""
        return _is_alive(self.pid, self.started_ticks)

    def is_running(self) -> bool:
        """Whether the process is there and answers."""
        if not self.is_alive:
            return False
        try:
            self.control.status()
        except (LabUnreachable, LabRefused):
            return False
        return True

    def stop(self, *, clock: Clock | None = None) -> None:
        """End the lab and wait until it is gone; one that does not listen any more is killed. Safe to call twice.

        Of a lab that is gone already only the file is removed, whoever has its process number or its port now.
        """
        the_clock = clock or SystemClock()
        if self.is_alive:
            try:
                self.control.stop()
            except (LabUnreachable, LabRefused):
                self._signal(signal.SIGTERM)
            if not self._is_gone_within(_STOP_S_MAX, the_clock):
                self._signal(signal.SIGKILL)
                self._is_gone_within(_STOP_S_MAX, the_clock)
        for folder in (*self.companion_folders, self.state_dir):
            forget_lab_file(folder, pid=self.pid, started_ticks=self.started_ticks)

    def _is_gone_within(self, timeout_s: float, clock: Clock) -> bool:
        deadline_s = clock.monotonic_s() + timeout_s
        while self.is_alive:
            if clock.monotonic_s() > deadline_s:
                return False
            clock.sleep(_LOOK_S)
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _is_alive(pid: int, started_ticks: int) -> bool:
    seen = _look_at(pid)
    if seen is None or seen[1] != started_ticks:
        return False
    if seen[0] == "Z":
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # ours to bury where this process started it
        return False
    return True


def _look_at(pid: int) -> tuple[str, int] | None:
    """Return a process's state and its start time in ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold blanks; the state behind it is field 3
    return fields[0], int(fields[22 - 3])


def write_lab_file(lab: RunningLab) -> None:
    """Write down where the lab listens and how to log in, for its owner alone, all at once."""
    options = lab.options
    seen = _look_at(os.getpid())
    facts: JsonObject = {
        "pid": os.getpid(),
        "started_ticks": seen[1] if seen else 0,
        "scenario": options.scenario,
        "url": lab.url,
        "plain_url": lab.plain_url,
        "nbd": list(lab.nbd_address),
        "user": lab.user,
        "password": lab.password.reveal(),
        "fingerprint": lab.fingerprint,
        "certificate": lab.certificate_pem,
        "control": list(lab.control.address),
        "token": lab.control.token.reveal(),
        "moved": [[each.name, each.wanted_port, each.port] for each in lab.moved],
        "companions": [str(each.options.state_dir.relative_to(options.state_dir)) for each in lab.companions],
    }
    path = options.state_dir / _FILE
    unfinished = path.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1)
    unfinished.replace(path)


def read_lab(state_dir: Path) -> LabHandle | None:
    """Return the lab of a folder, running or not; None when none was started there or it ended properly."""
    try:
        facts = cast(JsonObject, json.loads((state_dir / _FILE).read_text(encoding="utf-8")))
        return _handle(state_dir, facts)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def forget_lab_file(state_dir: Path, *, pid: int, started_ticks: int | None = None) -> None:
    """Remove the file that this process wrote; that of a lab which was started since stays."""
    held = read_lab(state_dir)
    if held is not None and held.pid == pid and started_ticks in (None, held.started_ticks):
        (state_dir / _FILE).unlink(missing_ok=True)


def _handle(state_dir: Path, facts: JsonObject) -> LabHandle:
    return LabHandle(
        state_dir=state_dir,
        pid=cast(int, facts["pid"]),
        started_ticks=cast(int, facts.get("started_ticks", -1)),  # a file without it names no process for certain
        scenario=str(facts["scenario"]),
        url=str(facts["url"]),
        plain_url=str(facts["plain_url"]),
        nbd_address=_address(facts["nbd"]),
        user=str(facts["user"]),
        password=Secret(str(facts["password"])),
        fingerprint=str(facts["fingerprint"]),
        certificate_pem=str(facts["certificate"]),
        control=LabControl(_address(facts["control"]), Secret(str(facts["token"]))),
        moved=tuple(MovedDoor(*each) for each in cast("list[tuple[str, int, int]]", facts.get("moved", []))),
        companion_folders=tuple(state_dir / str(each) for each in cast("list[object]", facts.get("companions", []))),
    )


def _address(value: object) -> tuple[str, int]:
    host, port = cast("list[object]", value)
    return str(host), int(cast(int, port))


def spawn_lab(options: LabOptions, *, clock: Clock | None = None, cancel: Cancellation | None = None) -> LabHandle:
    """Start a lab in its own process and return when it answers. ``LabDidNotStart`` with the reason otherwise.

    The process outlives this one unless it is to die with it. ``LabOptionInvalid`` for a scenario that there is none
    of, ``LabAlreadyRuns`` and ``LabFolderNotWritable`` come before anything is started; ``LabStartRefused`` is what the
    process itself refuses. Cancelled, it ends the process and leaves the folder as it was, or with its pool where it
    had one.
    """
    if options.scenario not in SCENARIOS:
        raise LabOptionInvalid(option="scenario", given=options.scenario, choices=sorted(SCENARIO_SUMMARIES))
    folder = options.state_dir
    held = read_lab(folder)
    if held is not None and held.is_alive:
        raise LabAlreadyRuns(folder=folder, url=held.url)
    if cancel is not None:
        cancel.check()
    was_there = folder.is_dir()
    prepare_folder(folder)
    is_fresh = not any(folder.iterdir())
    log_path = folder / LAB_LOG
    told_before_bytes = log_path.stat().st_size if log_path.exists() else 0
    process = _launch(options, log_path)
    try:
        return _answering(process, options, told_before_bytes, clock or SystemClock(), cancel)
    except BaseException as cause:
        _end(process)
        forget_lab_file(folder, pid=process.pid)
        # Half a pool is no use to anybody; of a failure the log stays, which says why.
        if is_fresh and not isinstance(cause, LabDidNotStart | LabAlreadyRuns):
            _empty(folder)
            if not was_there:
                folder.rmdir()
        raise


def _launch(options: LabOptions, log_path: Path) -> subprocess.Popen[bytes]:
    try:
        descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "holdfast.lab", *_arguments(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
    except OSError as cause:
        raise LabDidNotStart(folder=options.state_dir, reason=cause.strerror or str(cause)) from cause


def _answering(
    process: subprocess.Popen[bytes],
    options: LabOptions,
    told_before_bytes: int,
    clock: Clock,
    cancel: Cancellation | None,
) -> LabHandle:
    """Give the process its password and return the lab once it answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # one that ended already says why in its log
        process.stdin.write(options.password.reveal().encode() if options.password else b"")
    deadline_s = clock.monotonic_s() + _START_S_MAX
    while True:
        handle = read_lab(options.state_dir)
        if handle is not None and handle.pid == process.pid and handle.is_running():
            process.stdout.close()
            return handle
        if process.poll() is not None:
            _raise_refusal(options.state_dir, process.stdout.read())
            reason = _last_line(options.state_dir / LAB_LOG, after_bytes=told_before_bytes)
            raise LabDidNotStart(folder=options.state_dir, reason=reason)
        if clock.monotonic_s() > deadline_s:
            raise LabDidNotStart(folder=options.state_dir, reason=f"no answer within {_START_S_MAX:.0f} s")
        clock.sleep(_LOOK_S, cancel=cancel)


def tell_refusal(cause: HoldfastError) -> str:
    """Return the line by which the lab's process tells whoever started it why it ends."""
    told = {"message": str(cause), "code": cause.code, "effect": cause.effect, "next_step": cause.next_step()}
    return json.dumps({**told, "exit_status": int(cause.exit_status)})


def _raise_refusal(folder: Path, text: bytes) -> None:
    """Raise what the process told of its end; return when it told nothing, because it did not expect its end."""
    if not text:
        return
    told = cast(JsonObject, json.loads(text))
    if told["code"] == DiskStoreInUse.code:
        winner = read_lab(folder)
        raise LabAlreadyRuns(folder=folder, url=winner.url if winner is not None else None)
    raise LabStartRefused(folder=folder, told=told)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and what it started, and wait until it is gone."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


def _arguments(options: LabOptions) -> list[str]:
    """Return the command line for ``__main__``; the password goes through standard input, where nobody sees it."""
    arguments = [
        f"--state-dir={options.state_dir}",
        f"--scenario={options.scenario}",
        f"--host={options.host}",
        f"--hosts={options.hosts}",
        f"--plain-port={options.plain_port}",
        f"--tls-port={options.tls_port}",
        f"--nbd-port={options.nbd_port}",
        f"--nbd={options.nbd}",
        f"--storage-bytes={options.storage_bytes}",
        f"--verbosity={options.verbosity}",
    ]
    for each in fields(options.delays):
        arguments.append(f"--{each.name.replace('_', '-')}={getattr(options.delays, each.name)}")
    if options.user is not None:
        arguments.append(f"--user={options.user}")
    if options.dies_with_parent:
        arguments.append(f"--parent-pid={os.getpid()}")
    if options.seed is not None:
        arguments.append(f"--seed={options.seed}")
    arguments += ["--role-users"] if options.role_users else []
    arguments += [] if options.cbt else ["--no-cbt"]
    return arguments + ([] if options.witness else ["--no-witness"])


def _last_line(path: Path, *, after_bytes: int) -> str:
    """Return the last line that was written behind ``after_bytes``; what stands before is of an earlier run."""
    text = path.read_bytes()[after_bytes:].decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"
