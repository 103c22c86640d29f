"""Servers of others that tests start: on a free port, awaited until they listen, ended with the block."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["START_S_MAX", "free_port", "running", "wait_listening"]

START_S_MAX = 60.0
"""The slowest of them, Ceph, takes a few seconds on an idle machine."""

_STOP_S_MAX = 10.0


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(*command: str | Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends; what it says is added to a file.

    It leads a group of its own: some tell their whole group to end when they do, which must not be ours.
    """
    with output.open("ab") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=_STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when somebody listens on the port; fail when the program ends before, or takes too long."""
    deadline_s = time.monotonic() + START_S_MAX
    while True:
        assert process.poll() is None, f"{process.args!r} ended at once"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline_s, f"{process.args!r} does not listen"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
