"""A JavaScript client in a process of its own, spoken with line by line as ``drivers/bridge.mjs`` says.

Invariant: every request gets an answer or an error. A peer that dies answers all that wait with what it printed last.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import IO, Any

import pytest

from tests.judges.xo.install import JudgesAbsent, install_drivers

__all__ = ["Peer", "PeerFailed", "peer_or_skip"]

_ANSWER_S_MAX = 60
_END_S_MAX = 10
_PRINTED_BYTES_MAX = 4000


class PeerFailed(AssertionError):
    """The other program reports an error. ``code`` and ``params`` are those of the pool where it was one."""

    def __init__(self, verb: str, told: dict[str, Any]) -> None:
        super().__init__(f"{verb}: {told.get('message')}\n{told.get('stack', '')}")
        self.code: str | None = told.get("code")
        self.message = str(told.get("message"))
        self.params: list[str] = told.get("params") or []


class Peer:
    """One running client. A context manager: leaving the block ends it."""

    def __init__(self, script: str) -> None:
        # Appending, so that reading here moves nothing there. Closed with the peer.
        self._printed: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["node", script],
            cwd=install_drivers(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            text=True,
        )
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[str, Future[Any]]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name=f"judge-{script}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_END_S_MAX)
        self._process.stdout.close()
        self._printed.close()

    def ask(self, verb: str, /, **given: Any) -> Any:
        """Return the answer to one request; ``PeerFailed`` when it is an error."""
        return self.answer_of(self.begin(verb, **given))

    def begin(self, verb: str, /, **given: Any) -> Future[Any]:
        """Make a request and return at once; ``answer_of`` waits."""
        answer: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = (verb, answer)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"id": number, "verb": verb, "given": given}) + "\n")
            self._process.stdin.flush()
        except OSError:
            self._end_waiting()
        return answer

    @staticmethod
    def answer_of(answer: Future[Any]) -> Any:
        """Wait for what ``begin`` asked for."""
        return answer.result(_ANSWER_S_MAX)

    def printed(self) -> str:
        """Return the end of what the client wrote to its standard error."""
        self._printed.seek(0, 2)
        self._printed.seek(max(0, self._printed.tell() - _PRINTED_BYTES_MAX))
        return self._printed.read().decode(errors="replace")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._lock:
                verb, answer = self._waiting.pop(told["id"])
            if "error" in told:
                answer.set_exception(PeerFailed(verb, told["error"]))
            else:
                answer.set_result(told["result"])
        self._end_waiting()

    def _end_waiting(self) -> None:
        """Nobody will answer any more."""
        with self._lock:
            orphans, self._waiting = list(self._waiting.values()), {}
        for verb, answer in orphans:
            answer.set_exception(PeerFailed(verb, {"message": f"the program died\n{self.printed()}"}))


@contextlib.contextmanager
def peer_or_skip(script: str) -> Iterator[Peer]:
    """Yield a running client, or skip the test and say why it cannot be had."""
    try:
        install_drivers()
    except JudgesAbsent as absent:
        pytest.skip(f"{absent}: the lab is not judged by {script} here")
    with Peer(script) as peer:
        yield peer
