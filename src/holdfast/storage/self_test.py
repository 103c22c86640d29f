"""Whether a store keeps its promises, found out by trying: the verdict in words, with what each finding means for data.

Objects of the test are named ``probe-<time>-<chance>-…``, which no reader of a repository looks at. Invariant: whatever
happens, what the test stored is removed; what a killed test left is removed by the next one after an hour.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.core import Cancellation, Clock, Entropy, Progress, get_log
from holdfast.storage.errors import (
    ObjectLocked,
    StoreError,
    StoreFull,
    StoreNotReadable,
    StoreNotWritable,
    StoreUnreachable,
)
from holdfast.storage.findings import Finding, Severity
from holdfast.storage.probes import CHECKS, Probe, PromiseBroken, Speed
from holdfast.storage.store import ObjectStore

__all__ = ["PROBE_PREFIX", "SelfTest", "run_self_test"]

_log = get_log(__name__)

PROBE_PREFIX = "probe-"
_LEFT_AFTER = timedelta(hours=1)
"""No test takes as long; what is older was left by one that was killed."""

_LOCK_FOR = timedelta(minutes=2)
"""Long enough to try a deletion on a slow store, short enough to be gone soon: nobody can lift it before."""

_SLOW_S = 1.0
"""A run makes some hundred small requests besides its packs: at a second each they are what it waits for."""

_LOW_FREE_BYTES = 10 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """The outcome of a test."""

    store: str
    findings: tuple[Finding, ...]
    speed: Speed | None
    """None when the test found out before that the store does not work at all."""
    free_bytes: int | None

    @property
    def is_fit(self) -> bool:
        """Whether a repository is safe there."""
        return all(each.severity is not Severity.RISK for each in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        risks = sum(each.severity is Severity.RISK for each in self.findings)
        warnings = sum(each.severity is Severity.WARNING for each in self.findings)
        if risks:
            puts = "finding puts" if risks == 1 else "findings put"
            return f"Not fit for backups: {risks} {puts} data at risk. Do not keep restore points here."
        if warnings:
            return f"Fit for backups, with {_count(warnings, 'warning')}."
        return "Fit for backups."


def run_self_test(
    store: ObjectStore,
    cleaner: ObjectStore,
    *,
    with_lock: bool = False,
    known: Sequence[Finding] = (),
    clock: Clock,
    entropy: Entropy,
    progress: Progress,
    cancel: Cancellation,
) -> SelfTest:
    """Return what was found out. ``known`` is what the caller knows already, such as how a folder is mounted.

    ``cleaner`` is the same store for the clean-up, one that a cancellation does not stop. Raises what keeps the test
    from being made at all: ``StoreUnreachable``, ``StoreFull``, ``StoreNotWritable``, ``StoreNotReadable``.
    """
    _remove_left(cleaner, clock.now())
    prefix = f"{PROBE_PREFIX}{int(clock.now().timestamp())}-{entropy.token_bytes(4).hex()}-"
    probe = Probe(store, prefix=prefix, clock=clock, entropy=entropy, cancel=cancel)
    findings = list(known)
    try:
        for check in CHECKS:
            cancel.check()
            with progress.start(f"testing: {check.title}"), _told(findings, check.title, check.meaning_bad):
                seen = check.run(probe)
                findings.append(
                    Finding(name=check.title, severity=Severity.GOOD, seen=seen, meaning=check.meaning_good)
                )
        if with_lock:
            with (
                progress.start("testing: lock"),
                _told(findings, "lock", "Ransomware with our credentials could delete restore points before time."),
            ):
                findings.append(_try_lock(probe, clock.now() + _LOCK_FOR))
        with progress.start("testing: speed"):
            speed = probe.measure_speed()
        findings.append(_judge_speed(speed))
        free_bytes = store.free_bytes()
        findings.extend(_judge_space(free_bytes))
    finally:
        left = _remove(cleaner, prefix)
    if left:
        meaning = "Nothing but two minutes of a few bytes; the next test, or you, can remove them then."
        seen = f"{_count(left, 'object')} of this test stay until their lock ends"
        findings.append(Finding(name="clean-up", severity=Severity.NOTE, seen=seen, meaning=meaning))
    return SelfTest(store=store.describe(), findings=tuple(findings), speed=speed, free_bytes=free_bytes)


@contextlib.contextmanager
def _told(findings: list[Finding], name: str, meaning: str) -> Iterator[None]:
    """Turn a broken promise into a finding, and an error that is none of a broken line too."""
    try:
        yield
    except PromiseBroken as broken:
        findings.append(Finding(name=name, severity=Severity.RISK, seen=broken.seen, meaning=meaning))
    except (StoreUnreachable, StoreFull, StoreNotWritable, StoreNotReadable):
        raise
    except StoreError as failure:
        findings.append(Finding(name=name, severity=Severity.RISK, seen=f"it failed: {failure}", meaning=meaning))


def _try_lock(probe: Probe, until: datetime) -> Finding:
    held = probe.lock(until)
    if held is None:
        return Finding(
            name="lock",
            severity=Severity.WARNING,
            seen="this store holds nothing against deletion",
            meaning="Whoever gets our credentials can delete every restore point here; keep a second copy elsewhere.",
        )
    return Finding(
        name="lock",
        severity=Severity.GOOD,
        seen=f"held until {held:%H:%M:%S} UTC; deleting it was refused, also for a new lock that is shorter",
        meaning="Restore points can be protected for a time, from us and from whoever steals our credentials.",
    )


def _judge_speed(speed: Speed) -> Finding:
    days = 1e12 / speed.up_bytes_per_s / 86400
    seen = (
        f"small requests {speed.latency_s_median * 1000:.0f} ms (worst {speed.latency_s_worst * 1000:.0f} ms), "
        f"{speed.up_bytes_per_s / 1e6:.0f} MB/s up, {speed.down_bytes_per_s / 1e6:.0f} MB/s down"
    )
    hours_down = 1e12 / speed.down_bytes_per_s / 3600
    meaning = f"A full backup of 1 TB of new data takes about {_days(days)}, its restore {_days(hours_down / 24)}."
    if speed.latency_s_median > _SLOW_S:
        meaning += " Small requests are slow: expect minutes at the beginning and the end of each run."
        return Finding(name="speed", severity=Severity.WARNING, seen=seen, meaning=meaning)
    return Finding(name="speed", severity=Severity.GOOD, seen=seen, meaning=meaning)


def _judge_space(free_bytes: int | None) -> Iterator[Finding]:
    if free_bytes is None:
        yield Finding(
            name="space",
            severity=Severity.NOTE,
            seen="the store does not say how much is free",
            meaning="A backup that meets its end stops cleanly; watch the quota or the bill yourself.",
        )
    elif free_bytes < _LOW_FREE_BYTES:
        yield Finding(
            name="space",
            severity=Severity.WARNING,
            seen=f"only {free_bytes / (1 << 30):.1f} GiB are free",
            meaning="The next backups may not fit; those that exist are safe.",
        )


def _remove_left(cleaner: ObjectStore, now: datetime) -> None:
    """Remove what tests that were killed have left."""
    for info in list(cleaner.list(PROBE_PREFIX)):
        text = info.key.removeprefix(PROBE_PREFIX).partition("-")[0]
        if text.isdecimal() and now.timestamp() - int(text) > _LEFT_AFTER.total_seconds():
            with contextlib.suppress(ObjectLocked):
                cleaner.delete(info.key)
                _log.info("store.probe-swept", store=cleaner.describe(), key=info.key)


def _remove(cleaner: ObjectStore, prefix: str) -> int:
    """Remove what this test stored; return how many objects a lock keeps."""
    kept = 0
    for info in list(cleaner.list(prefix)):
        try:
            cleaner.delete(info.key)
        except ObjectLocked:
            kept += 1
    return kept


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _days(days: float) -> str:
    if days >= 2:
        return f"{days:.0f} days"
    hours = days * 24
    return f"{hours:.0f} hours" if hours >= 2 else f"{hours * 60:.0f} minutes"
