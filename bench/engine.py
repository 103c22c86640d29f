"""The repository engine beside its peers: backups, increments, restore, verification, deletion, clones.

Rounds are interleaved, so that a busy minute of the machine hits everybody; figures are medians. A restore counts only
when the restored disk equals the image, compared outside the measured time. A contender that fails is told and left out
of the rest of its round; the others go on.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.contenders import Contender, Step, Workplace
from bench.images import Images
from bench.machine import load
from bench.measure import CommandFailed, Cost, run_measured, same_bytes, used_bytes, warm
from holdfast.core import MIB

__all__ = ["RestoredWrongly", "Sample", "compare", "table"]

Say = Callable[[str], None]


class RestoredWrongly(Exception):
    """An engine gave back something else than it was given; its times mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One step of one contender in one round."""

    contender: str
    round: int
    step: Step
    cost: Cost
    grown_bytes: int
    """How much its repository grew by this step; negative when it shrank."""
    load: float
    """How busy the machine was before it: figures of a machine that does something else mean little."""
    data_bytes: int | None = None
    """How much of the disk is not zero, where the contender tells."""
    new_bytes: int | None = None
    """How much of that the repository had not known."""

    def to_json(self) -> str:
        """Return the sample as one line."""
        return json.dumps({**asdict(self), "step": self.step.value})


def compare(
    contenders: Sequence[Contender], images: Images, *, rounds: int, folder: Path, log: Path, say: Say
) -> list[Sample]:
    """Run every contender ``rounds`` times in turn; return the samples, which ``log`` gets as lines too.

    ``RestoredWrongly`` when a restored disk is not the disk; a step that fails is told to ``say``.
    """
    samples: list[Sample] = []
    for number in range(1, rounds + 1):
        for contender in contenders:
            say(f"round {number} of {rounds}: {contender.name}")
            place = Workplace(folder / "work")
            try:
                for sample in _one_round(contender, images, number=number, place=place):
                    samples.append(sample)
                    say(f"  {sample.step.value:10} {sample.cost.wall_s:7.2f} s  {sample.grown_bytes / 1e6:+9.1f} MB")
                    with log.open("a") as file:
                        file.write(sample.to_json() + "\n")
            except CommandFailed as failure:
                say(f"  {contender.name} failed, the rest of this round is left out: {failure}")
            finally:
                shutil.rmtree(place.folder, ignore_errors=True)
    return samples


def _one_round(contender: Contender, images: Images, *, number: int, place: Workplace) -> Iterator[Sample]:
    shutil.rmtree(place.folder, ignore_errors=True)
    place.state.mkdir(parents=True)
    for step in Step:
        command = contender.command(step, place, images)
        if command is None:
            continue
        _show(step, place, images)
        before_bytes = used_bytes(place.repository)
        busy = load()
        log = place.folder / "log"
        cost = run_measured(command, environment=contender.environment(place), log=log)
        yield Sample(
            contender=contender.name,
            round=number,
            step=step,
            cost=cost,
            grown_bytes=used_bytes(place.repository) - before_bytes,
            load=busy,
            **_told(log),
        )
        if step is Step.RESTORE:
            restored = contender.restored(place)
            if not same_bytes(restored, images.database.disk):
                raise RestoredWrongly(f"{contender.name}: the restored disk is not the disk")
            restored.unlink()


def _show(step: Step, place: Workplace, images: Images) -> None:
    """Put what a step backs up at its place, and into the page cache."""
    match step:
        case Step.FIRST:
            image, at = images.base, place.disk
        case Step.UPGRADE:
            image, at = images.upgrade.disk, place.disk
        case Step.DATABASE:
            image, at = images.database.disk, place.disk
        case Step.CLONE:
            image, at = images.clone.disk, place.other_disk
        case Step.REINSTALL:
            image, at = images.reinstalled, place.other_disk
        case Step.CREATE | Step.RESTORE | Step.VERIFY | Step.DELETE:
            return
    place.show(image, at=at)
    warm(at)


def _told(log: Path) -> dict[str, int]:
    """Return what the contender's last line tells about blocks, when it is a JSON document that does."""
    lines = log.read_text(errors="replace").splitlines()
    try:
        told = json.loads(lines[-1]) if lines else None
    except ValueError:
        return {}
    return {key: told[key] for key in ("data_bytes", "new_bytes") if key in told} if isinstance(told, dict) else {}


def table(samples: Sequence[Sample], images: Images) -> str:
    """Return the medians as Markdown tables, and how many times faster the first contender is than each other."""
    names = list(dict.fromkeys(sample.contender for sample in samples))
    steps = [step for step in Step if step is not Step.CREATE and any(sample.step is step for sample in samples)]
    lines = ["Wall seconds (CPU seconds):", "", "| engine | " + " | ".join(step.value for step in steps) + " |"]
    lines.append("| --- " * (len(steps) + 1) + "|")
    lines += [f"| {name} | " + " | ".join(_time(samples, name, step) for step in steps) + " |" for name in names]
    writing = [step for step in steps if step not in (Step.RESTORE, Step.VERIFY)]
    lines += ["", "Growth of the repository in MB, and peak memory in MiB:", ""]
    lines.append("| engine | " + " | ".join(step.value for step in writing) + " | memory |")
    lines.append("| --- " * (len(writing) + 2) + "|")
    for name in names:
        grown = [_median_text(samples, name, step, lambda each: each.grown_bytes / 1e6, digits=1) for step in writing]
        peak = max(sample.cost.rss_peak_bytes for sample in samples if sample.contender == name) / MIB
        lines.append(f"| {name} | " + " | ".join(grown) + f" | {peak:.0f} |")
    lines += ["", *_remarks(samples, names[0], images), *_ratios(samples, names, steps)]
    return "\n".join(lines)


def _remarks(samples: Sequence[Sample], name: str, images: Images) -> list[str]:
    lines = []
    for step in (Step.CLONE, Step.REINSTALL):
        own = [each for each in samples if each.contender == name and each.step is step]
        known = [each.data_bytes - each.new_bytes for each in own if each.data_bytes and each.new_bytes is not None]
        if known:
            speed = images.disk_bytes / 1e9 / statistics.median(each.cost.wall_s for each in own)
            line = (
                f"{name}, {step.value}: {statistics.median(known) / 1e6:.0f} MB of blocks were known, {speed:.1f} GB/s"
            )
            if step is Step.CLONE:
                shared_bytes = images.nonzero_bytes - images.clone.changed_bytes
                line += f", {statistics.median(known) / shared_bytes:.2%} of those that are as in the first machine"
            lines.append(f"{line}.")
    return lines


def _ratios(samples: Sequence[Sample], names: Sequence[str], steps: Sequence[Step]) -> list[str]:
    lines = []
    for name in names[1:]:
        factors = []
        for step in steps:
            ours, other = _walls(samples, names[0], step), _walls(samples, name, step)
            if ours and other:
                factors.append(f"{step.value} {statistics.median(other) / statistics.median(ours):.1f}x")
        lines.append(f"{names[0]} is faster than {name} by: {', '.join(factors)} (wall time).")
    return lines


def _time(samples: Sequence[Sample], name: str, step: Step) -> str:
    if not _walls(samples, name, step):
        return ""
    cpu = _median_text(samples, name, step, lambda each: each.cost.cpu_s, digits=1)
    return f"{statistics.median(_walls(samples, name, step)):.2f} ({cpu})"


def _walls(samples: Sequence[Sample], name: str, step: Step) -> list[float]:
    return [each.cost.wall_s for each in samples if each.contender == name and each.step is step]


def _median_text(
    samples: Sequence[Sample], name: str, step: Step, value: Callable[[Sample], float], *, digits: int
) -> str:
    values = [value(each) for each in samples if each.contender == name and each.step is step]
    return f"{statistics.median(values):.{digits}f}" if values else ""
