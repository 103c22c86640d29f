"""A disk read over several NBD connections side by side, handed on in the order of the disk.

Each connection has a thread that takes the next piece, reads it and puts it in its place in line. Invariant: at most
``limits.NBD_READ_AHEAD_MAX`` pieces are taken and not yet handed on, so memory is NBD_READ_AHEAD_MAX x NBD_READ_BYTES
(16 MiB) per disk, whatever its size; a piece is handed on whole or not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from holdfast.core import MIB, Cancellation, Clock, get_log, limits
from holdfast.model import Coverage, DataRun, Extent, Run, ZeroRun
from holdfast.xapi.errors import NbdConnectionLost, NbdUnavailable
from holdfast.xapi.nbd import NbdBroken, NbdConnection
from holdfast.xapi.pieces import grown_zeros, pieces_of
from holdfast.xapi.values import ReadPlan

__all__ = ["NbdDiskReader", "connections_for"]

_log = get_log(__name__)

_BYTES_PER_CONNECTION = 128 * MIB
"""Attaching the disk once more costs the host a second or two; less than this is read sooner by those that are open."""
_BACK_OFF_S = (0.5, 2.0, 5.0, 10.0, 20.0)


def connections_for(planned_bytes: int) -> int:
    """Return how many connections a read of that size is worth."""
    return max(1, min(limits.NBD_CONNECTIONS_PER_DISK_MAX, planned_bytes // _BYTES_PER_CONNECTION))


class NbdDiskReader:
    """A ``DiskReader`` over NBD. ``open_connection`` gives another connection to the same disk, or NbdUnavailable."""

    def __init__(
        self,
        plan: ReadPlan,
        first: NbdConnection,
        *,
        open_connection: Callable[[Cancellation], NbdConnection],
        clock: Clock,
        cancel: Cancellation,
    ) -> None:
        assert plan.blocks is not None
        self.plan = plan
        self._clock, self._cancel, self._open_connection = clock, cancel, open_connection
        self._line = _Line(pieces_of(plan.blocks, size_bytes=plan.size_bytes))
        self._workers = [_Worker(self, first)]
        self._workers += [_Worker(self, None) for _ in range(connections_for(plan.planned_bytes) - 1)]
        self._started = False
        self._stopping = Cancellation()
        self._opening = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """See ``DiskReader``."""
        return self.plan.size_bytes

    @property
    def coverage(self) -> Coverage:
        """See ``DiskReader``."""
        return self.plan.coverage

    @property
    def planned_bytes(self) -> int:
        """See ``DiskReader``."""
        return self.plan.planned_bytes

    def runs(self) -> Iterator[Run]:
        """See ``DiskReader``. Raises ``NbdConnectionLost`` when every way to the disk is gone."""
        assert not self._started, "a disk is read once"
        self._started = True
        zeros = iter(self._zeros())
        zero = next(zeros, None)
        with self._cancel.on_cancel(self._stop):
            for worker in self._workers:
                worker.start()
            for offset_bytes, data in self._line.in_order():
                while zero is not None and zero.offset_bytes < offset_bytes:
                    yield zero
                    zero = next(zeros, None)
                yield DataRun(offset_bytes, data)
            self._cancel.check()
        while zero is not None:
            yield zero
            zero = next(zeros, None)

    def _zeros(self) -> list[ZeroRun]:
        plan = self.plan
        if plan.coverage is Coverage.WHOLE or plan.reference_size_bytes is None or plan.blocks is None:
            return []
        return grown_zeros(plan.blocks, reference_size_bytes=plan.reference_size_bytes, size_bytes=plan.size_bytes)

    def _stop(self) -> None:
        """Make every thread of this reader return soon. Safe from any thread."""
        self._line.close(None)
        self._stopping.cancel()
        for worker in self._workers:
            worker.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._line.is_drained:
            # The connections are idle and take a goodbye; one that is still being opened is not needed any more.
            self._stopping.cancel()
        else:
            self._stop()
        for worker in self._workers:
            worker.finish()

    # --- for the workers

    def work(self, worker: _Worker) -> None:
        """Read pieces until none is left; what ends a thread for good ends the whole read."""
        try:
            if worker.connection is None and not self._opened(worker):
                return
            while (taken := self._line.take()) is not None:
                turn, piece, buffer = taken
                view = memoryview(buffer)[: piece.length_bytes]
                self._read(worker, piece, view)
                self._line.put(turn, piece.offset_bytes, view)
        except BaseException as failure:
            self._line.close(failure)

    def _opened(self, worker: _Worker) -> bool:
        """Open a further connection while there is still something to read; that there is none more is no harm."""
        try:
            with self._opening:
                if self._line.is_exhausted:
                    return False
                worker.connection = self._open_connection(self._stopping)
        except NbdUnavailable as failure:
            _log.info("nbd.fewer-connections", disk=self.plan.snapshot, why=failure.why)
            return False
        return True

    def _read(self, worker: _Worker, piece: Extent, view: memoryview) -> None:
        """Read one piece, connecting again where the connection breaks."""
        why = "it was never connected"
        for attempt in range(limits.NBD_RECONNECTS_MAX + 1):
            self._stopping.check()
            try:
                if worker.connection is None:
                    worker.connection = self._open_connection(self._stopping)
                worker.connection.read_into(piece.offset_bytes, view)
                return
            except (NbdBroken, NbdUnavailable) as failure:
                why = str(failure)
                worker.drop()
                _log.info("nbd.reconnects", disk=self.plan.snapshot, offset=piece.offset_bytes, why=why)
            if attempt < limits.NBD_RECONNECTS_MAX:
                self._clock.sleep(_BACK_OFF_S[attempt], cancel=self._stopping)
        raise NbdConnectionLost(
            disk=self.plan.snapshot, offset_bytes=piece.offset_bytes, attempts=limits.NBD_RECONNECTS_MAX + 1, why=why
        )


class _Worker:
    """One connection and the thread that reads on it."""

    def __init__(self, reader: NbdDiskReader, connection: NbdConnection | None) -> None:
        self.connection = connection
        self._thread = threading.Thread(target=reader.work, args=(self,), name="nbd-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def interrupt(self) -> None:
        connection = self.connection
        if connection is not None:
            connection.interrupt()

    def drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def finish(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        self.drop()


class _Line:
    """Pieces handed out in order, and their data handed on in the same order; bounded."""

    def __init__(self, pieces: Iterator[Extent]) -> None:
        self._pieces = pieces
        self._changed = threading.Condition()
        self._free = [bytearray(limits.NBD_READ_BYTES) for _ in range(limits.NBD_READ_AHEAD_MAX)]
        self._done: dict[int, tuple[int, memoryview]] = {}
        self._taken = 0
        self._next_turn = 0
        self._exhausted = False
        self._closed = False
        self._failure: BaseException | None = None

    def take(self) -> tuple[int, Extent, bytearray] | None:
        """Return the next piece, its turn and a buffer to read into; None when there is nothing left to do."""
        with self._changed:
            while not self._free and not self._closed:
                self._changed.wait()
            if self._closed or self._exhausted:
                return None
            piece = next(self._pieces, None)
            if piece is None:
                self._exhausted = True
                self._changed.notify_all()
                return None
            turn = self._taken
            self._taken += 1
            return turn, piece, self._free.pop()

    def put(self, turn: int, offset_bytes: int, data: memoryview) -> None:
        """Give a piece's data back."""
        with self._changed:
            self._done[turn] = (offset_bytes, data)
            self._changed.notify_all()

    def close(self, failure: BaseException | None) -> None:
        """Stop handing out. A failure is raised to whoever waits for the data; the first one is kept."""
        with self._changed:
            self._closed = True
            if self._failure is None:
                self._failure = failure
            self._changed.notify_all()

    def in_order(self) -> Iterator[tuple[int, memoryview]]:
        """Yield offset and data of every piece; a buffer is used again once the next one is asked for."""
        while True:
            with self._changed:
                while not self._is_next_ready():
                    self._changed.wait()
                if self._failure is not None:
                    raise self._failure
                if self._closed or self._next_turn not in self._done:
                    return
                offset_bytes, data = self._done.pop(self._next_turn)
                self._next_turn += 1
            yield offset_bytes, data
            with self._changed:
                buffer = data.obj
                assert isinstance(buffer, bytearray)
                self._free.append(buffer)
                self._changed.notify_all()

    @property
    def is_exhausted(self) -> bool:
        """Whether there is nothing left to take."""
        with self._changed:
            return self._exhausted or self._closed

    @property
    def is_drained(self) -> bool:
        """Whether every piece was handed on."""
        with self._changed:
            return self._exhausted and self._next_turn == self._taken

    def _is_next_ready(self) -> bool:
        drained = self._exhausted and self._next_turn == self._taken
        return self._closed or drained or self._next_turn in self._done
