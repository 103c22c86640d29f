"""The keeper's work: look at the folder, hold what is new, let go of what is due; again and again.

Invariant: an object that is held is let go only when the keeper's own time has passed the time it was promised for, and
that only ever gets later. Nothing that is written into the folder can change this.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.core import Clock, ExitStatus, HoldfastError, get_log, limits, mapped
from holdfast.keeper.exchange import WORD_FILE, HeldFile, KeeperWord, format_held, format_word, held_name
from holdfast.keeper.flags import FileFlags
from holdfast.keeper.kept_time import KeptTime
from holdfast.keeper.requests import RequestReader
from holdfast.keeper.state import KeeperState
from holdfast.keeper.tree import KeptTree, NotTouched

__all__ = ["Keeper", "KeeperDaysInvalid", "KeeperFailed", "PassReport"]

_DAY_S = 24 * 3600
_FULL_LOOK_S = _DAY_S
"""How often every flag is looked at, which takes about 20 s for a million files; between, only what has changed."""
_SETTLED_NS = 5_000_000_000
"""A folder that was changed so recently may change again within the same tick of the file system's clock."""
_DAYS_FOR_STEPS = 45
"""Packs are held in steps, 33 days longer than their points at most."""
_UNFINISHED_S = 3600
"""A put takes minutes at most; a file that has two names for longer was left by a writer that died."""
_REQUEST_WAITS_S = 2 * 3600
"""A request may come before its object is finished."""
_REQUESTS_WAITING_MAX = 500_000
"""Those of 30 TB at once, in about 80 MB."""

_log = get_log(__name__)


class KeeperDaysInvalid(HoldfastError):
    """Times that a keeper cannot work with."""

    code = "keeper.days-invalid"
    exit_status = ExitStatus.USAGE
    effect = "Nothing was changed."
    advice = f"Give 1 to {limits.LOCK_DAYS_MAX} days, and a longest time that is not shorter."

    def __init__(self, *, days: int, days_max: int) -> None:
        super().__init__(f"objects cannot be held for {days} days, and for {days_max} at most")
        self.days, self.days_max = days, days_max


class KeeperFailed(HoldfastError):
    """A look at the folder broke off."""

    code = "keeper.failed"
    effect = "Everything that is held stays held; what is new is held after the next look that succeeds."
    advice = "Look at the cause above: the disk, its file system, or the space for the keeper's own files."

    def __init__(self, *, folder: str, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder, self.reason = folder, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one look at the folder has done."""

    held: int
    """Objects that are held now."""
    newly_held: int
    lengthened: int
    let_go: int
    not_held: int
    """Objects that could not be held; see ``KeeperWord``."""
    vanished: int
    """Objects that were held and are not there: root has removed them, or the disk has lost them."""
    behind_s: int
    """How far the keeper's own time is behind the server's clock."""


@dataclass(slots=True)
class _Group:
    """What is remembered of a group of objects between two looks, so that most can be passed over."""

    stamp: tuple[int, ...] = ()
    next_due_s: float = 0.0
    held: int = 0
    not_held: int = 0


@dataclass(slots=True)
class _Counts:
    newly_held: int = 0
    lengthened: int = 0
    let_go: int = 0
    vanished: int = 0


class Keeper:
    """Keeps one folder. A context manager; leaving it leaves every flag as it is. Not thread-safe."""

    def __init__(
        self, folder: Path, *, state: Path, days: int, flags: FileFlags, clock: Clock, days_max: int | None = None
    ) -> None:
        """Open the folder. ``KeeperDaysInvalid``, ``KeeperRefused``, ``KeeperNotRoot``, ``KeeperBusy``.

        ``days_max``: for how long a request may ask; without it, as long as a repository
        of twice the days does.
        """
        if days_max is None:
            days_max = min(2 * days + _DAYS_FOR_STEPS, limits.LOCK_DAYS_MAX)
        if not 1 <= days <= days_max <= limits.LOCK_DAYS_MAX:
            raise KeeperDaysInvalid(days=days, days_max=days_max)
        self._folder = folder.resolve()
        self._days, self._days_max = days, days_max
        self._clock = clock
        with self._failures(), contextlib.ExitStack() as opened:
            self._tree = KeptTree(self._folder, flags=flags)
            opened.callback(self._tree.close)
            self._state = KeeperState(state, folder=self._folder)
            opened.callback(self._state.close)
            self._time = KeptTime(
                last_s=self._state.read_time(), wall_s=self._wall_s(), monotonic_s=clock.monotonic_s()
            )
            self._requests = RequestReader(owner=self._tree.owner)
            self._opened = opened.pop_all()
        self._groups: dict[str, _Group] = {}
        self._waiting: dict[str, tuple[int, float]] = {}
        self._last_full_s: float | None = None

    def look(self) -> PassReport:
        """Look at the folder once and do what is due. Interrupted anywhere, the next continues. ``KeeperFailed``."""
        with self._failures():
            return self._look()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _look(self) -> PassReport:
        wall_s, monotonic_s = self._wall_s(), self._clock.monotonic_s()
        now_s = self._time.advance(wall_s=wall_s, monotonic_s=monotonic_s)
        self._state.write_time(now_s)
        is_full = self._last_full_s is None or monotonic_s - self._last_full_s >= _FULL_LOOK_S
        self._tree.pin()
        requests = self._tree.open_requests()
        with contextlib.ExitStack() as closing:
            closing.callback(os.close, requests)
            wanted = self._wanted_by_group(self._requests.read(requests), wall_s, now_s)
            counts = _Counts()
            folders = self._tree.groups()
            for group in sorted(folders.keys() | self._state.names()):
                asked = wanted.get(group, {})
                if is_full or asked or self._is_worth_a_look(group, folders.get(group, ()), now_s):
                    self._keep(group, folders.get(group, ()), asked, now_s, wall_s, counts, is_full=is_full)
            self._requests.finish(requests, now_s=wall_s)
        if is_full:
            self._last_full_s = monotonic_s
        return self._report(counts, now_s, wall_s)

    def _wanted_by_group(self, fresh: Mapping[str, int], wall_s: float, now_s: float) -> dict[str, dict[str, int]]:
        """Return the requests of this look and those that still wait for their objects, by group, none too long."""
        longest_s = round(now_s) + self._days_max * _DAY_S
        for key, until_s in fresh.items():
            if key not in self._waiting and len(self._waiting) >= _REQUESTS_WAITING_MAX:
                continue  # somebody asks for what is not there; who does that cannot be helped
            before_s = self._waiting.get(key, (0, wall_s))[0]
            self._waiting[key] = (max(before_s, min(until_s, longest_s)), wall_s)
        wanted: dict[str, dict[str, int]] = {}
        for key, (until_s, since_s) in list(self._waiting.items()):
            if wall_s - since_s > _REQUEST_WAITS_S:
                del self._waiting[key]
                continue
            wanted.setdefault(held_name(key), {})[key] = until_s
        return wanted

    def _is_worth_a_look(self, group: str, folders: tuple[str, ...], now_s: float) -> bool:
        known = self._groups.get(group)
        return known is None or known.next_due_s <= now_s or known.stamp != self._tree.stamp(folders)

    def _keep(
        self,
        group: str,
        folders: tuple[str, ...],
        asked: Mapping[str, int],
        now_s: float,
        wall_s: float,
        counts: _Counts,
        *,
        is_full: bool,
    ) -> None:
        """Bring one group up to date: what it holds is written down first, then flagged; let go, then written down."""
        stamp = self._tree.stamp(folders)
        known = self._state.read(group)
        present = self._tree.objects(group, folders)
        fresh, not_held = self._finished(present - known.keys(), wall_s)
        held = {key: each for key, each in known.items() if key in present}
        counts.vanished += sum(each.is_held for key, each in known.items() if key not in present)
        until_s = self._until_s(now_s, wall_s)
        held.update(dict.fromkeys(fresh, HeldFile(until_s, True)))
        counts.newly_held += len(fresh)
        to_flag = set(fresh)
        for key, wanted_s in asked.items():
            if key in held:
                del self._waiting[key]
                if wanted_s > max(held[key].until_s, now_s):
                    counts.lengthened += 1
                    if not held[key].is_held:
                        to_flag.add(key)
                    held[key] = HeldFile(wanted_s, True)
        if held != known:
            self._write(group, held)
        if is_full:
            to_flag |= {key for key, each in held.items() if each.is_held and each.until_s > now_s}
        for key in sorted(to_flag):
            with contextlib.suppress(FileNotFoundError, NotTouched):
                self._tree.hold(key)
        due = sorted(key for key, each in held.items() if each.is_held and each.until_s <= now_s)
        if due:
            self._let_go(group, held, due)
            counts.let_go += len(due)
        self._remember(group, stamp, held, not_held, wall_s)

    def _finished(self, keys: set[str], wall_s: float) -> tuple[list[str], int]:
        """Return the objects that are finished, and how many are not or must not be touched."""
        finished, others = [], 0
        for key in sorted(keys):
            try:
                self._check_finished(key, wall_s)
            except FileNotFoundError:
                continue
            except NotTouched:
                others += 1
            else:
                finished.append(key)
        return finished, others

    def _check_finished(self, key: str, wall_s: float) -> None:
        try:
            self._tree.check_finished(key)
        except NotTouched:
            self._tree.cut_second_names(key, made_before_s=wall_s - _UNFINISHED_S)
            self._tree.check_finished(key)

    def _let_go(self, group: str, held: dict[str, HeldFile], due: list[str]) -> None:
        for key in due:
            with contextlib.suppress(FileNotFoundError):
                self._tree.let_go(key)
            held[key] = HeldFile(held[key].until_s, False)
        self._write(group, held)

    def _write(self, group: str, held: dict[str, HeldFile]) -> None:
        self._state.write(group, held)
        self._tree.publish(group, format_held(held), held=True)

    def _remember(
        self, group: str, stamp: tuple[int, ...], held: Mapping[str, HeldFile], not_held: int, wall_s: float
    ) -> None:
        """Note what lets the next looks pass the group over."""
        is_settled = not_held == 0 and wall_s * 1e9 - max(stamp, default=0) > _SETTLED_NS
        self._groups[group] = _Group(
            stamp=stamp if is_settled else (-1,),
            next_due_s=min((each.until_s for each in held.values() if each.is_held), default=float("inf")),
            held=sum(each.is_held for each in held.values()),
            not_held=not_held,
        )

    def _report(self, counts: _Counts, now_s: float, wall_s: float) -> PassReport:
        held = sum(each.held for each in self._groups.values())
        not_held = sum(each.not_held for each in self._groups.values())
        behind_s = max(0, round(wall_s - now_s))
        word = KeeperWord(
            days=self._days,
            days_max=self._days_max,
            time_s=round(now_s),
            behind_s=behind_s,
            held_files=held,
            not_held=not_held,
        )
        self._tree.publish(WORD_FILE, format_word(word))
        if counts.vanished:
            _log.warning("keeper.vanished", folder=str(self._folder), objects=counts.vanished)
        return PassReport(
            held=held,
            newly_held=counts.newly_held,
            lengthened=counts.lengthened,
            let_go=counts.let_go,
            not_held=not_held,
            vanished=counts.vanished,
            behind_s=behind_s,
        )

    def _until_s(self, now_s: float, wall_s: float) -> int:
        """Return until when a new object is held: for all its days by either clock, but not for ever by a wrong one."""
        return round(min(max(now_s, wall_s) + self._days * _DAY_S, now_s + self._days_max * _DAY_S))

    def _wall_s(self) -> float:
        return self._clock.now().timestamp()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        def failed(cause: BaseException) -> HoldfastError:
            return KeeperFailed(folder=str(self._folder), reason=str(cause))

        with mapped(OSError, to=failed):
            yield
